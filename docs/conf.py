"""How Sphinx builds these pages. It asks nothing of the network: no pages of others, no CDN."""

from importlib.metadata import version as installed_version

project = "Headgate"
author = "the Headgate authors"
copyright = author
version = release = installed_version("headgate")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "Headgate"
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # [text](page.md#heading) works, and is checked

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# The build is nitpicky: a name of ours that leads nowhere is an error. Names of others cannot be looked up
# without the network, and a type variable has no page.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!headgate\.).*\..*"),
    (r"py:.*", r"[A-Z]\w?|Any|Self"),
    # Signatures name a few types that are how things are made, and are no part of the reference.
    (r"py:class", r"headgate\.(protocol|runtime)\..*|Driver"),
    (r"py:class", r"headgate\.flow\.\w+\..*|dict\[str"),  # as headgate.flow.NAME; a default that is made
    (r"py:class", r"headgate\.eventlog\.\w+\..*"),  # they are in the reference as headgate.eventlog.NAME
    (r"py:class", r"Row|Query|References|datetime|Path"),
    (r"py:class", r"headgate\.pipeline\.(lookups\.Calls|augment\.(Cache|Policy))"),
    (r"py:class", r"headgate\.(stage\.Stage|system\.(Startable|Recipe|R(_co)?))"),
    (r"py:class", r"headgate\.(types\.Keeper|pipeline\.(run\.Run|routes\.Route))|Run"),
]
