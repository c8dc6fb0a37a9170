"""One question, many sites: results stream to a web page as they come, and nobody waits for the slowest.

Run it with one of::

    python -m examples.live_search            # a web page, at the address that it prints
    python -m examples.live_search canal      # one search, in the terminal
    headgate run examples.live_search:app     # the web page, as any app

Eight sites are searched; they are made up, and run on this machine. One is slow, one stumbles now and then, one is
down, and one never answers. However many people search, no site is asked more than two things at a time, nor more often
than it allows.

Read it in this order:

1. `search`: a pipeline for each site, and what a search is. This is where the library is used.
2. `web`: the page and the stream of results; a search ends when its reader leaves.
3. `sites`: the sites, which count how they are asked. `page/`: what runs in the browser.
"""

from .app import LiveSearch, app

__all__ = ["LiveSearch", "app"]
