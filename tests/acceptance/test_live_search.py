"""Live search: no site is asked beyond what it stands, whoever searches; and one that hangs slows nobody down.

Most of it in virtual time, with sites that are functions; the last part over real sockets.
"""

import asyncio
import contextlib
import itertools
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from examples.live_search import LiveSearch
from examples.live_search.search import (
    ASKING,
    FAILED,
    FOUND,
    NOT_ASKED,
    TIMED_OUT,
    Result,
    Searcher,
    Site,
    SitePipeline,
)
from examples.live_search.sites import HITS, SITES
from headgate import Supervisor, testing

PAGE = Path("examples/live_search/page")


class World:
    """Sites that take as long as they are told to, and count how they are asked."""

    def __init__(self, **seconds):
        self.seconds = seconds
        self.asked: list[tuple[str, str]] = []
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def ask(self, site, question):
        name = site.name
        self.asked.append((name, question))
        self.times[name].append(asyncio.get_running_loop().time())
        self.running[name] += 1
        self.most[name] = max(self.most[name], self.running[name])
        try:
            seconds = self.seconds[name]
            if isinstance(seconds, Exception):
                raise seconds
            await asyncio.sleep(seconds)
        finally:
            self.running[name] -= 1
        return [Result(f"{question} at {name}", "", "")]

    @contextlib.asynccontextmanager
    async def searcher(self, **options):
        pipelines = [SitePipeline(Site(name, name.title(), **options), self.ask) for name in self.seconds]
        async with Supervisor(pipelines):
            yield Searcher(pipelines)


async def read(search):
    """Read a search to its end; return what became of each site, and when."""
    loop = asyncio.get_running_loop()
    ends = {}
    async for news in search:
        if news.state != ASKING:
            assert news.site not in ends
            ends[news.site] = (news.state, round(loop.time() - search.begins, 3))
    return ends


def run(main, seed=0):
    return testing.run(main(), seed=seed, tick=0)


HUNG = 10_000.0


@pytest.mark.parametrize("seed", range(5))
def test_fifty_searches_at_a_time_never_ask_a_site_for_more_than_it_stands(seed):
    world = World(quick=0.05, slow=0.4, hung=HUNG, down=ConnectionError("down"))
    at_once, per_second = 2, 20.0

    async def main():
        async with world.searcher(at_once=at_once, per_second=per_second) as searcher:
            return await asyncio.gather(*(read(searcher.search(f"question {number}")) for number in range(50)))

    found = run(main, seed)
    for site in world.seconds:
        assert 0 < world.most[site] <= at_once
        times = world.times[site]
        for first, last in itertools.combinations(range(len(times)), 2):
            allowed = at_once + per_second * (times[last] - times[first]) + 1e-6
            assert last - first + 1 <= allowed, "a token bucket, in every window"
    assert all(set(ends) == set(world.seconds) for ends in found), "every site comes to an end in every search"
    assert {ends["quick"][0] for ends in found} == {FOUND}
    assert {ends["hung"][0] for ends in found} <= {TIMED_OUT, NOT_ASKED}
    assert {ends["down"][0] for ends in found} <= {FAILED, NOT_ASKED}
    assert len(world.times["hung"]) <= 8, "it was left in peace after a few"


def test_a_site_that_hangs_slows_no_other_one_down():
    def ends_of_others(**more):
        world = World(quick=0.05, slow=0.4, **more)

        async def main():
            async with world.searcher() as searcher:
                return await asyncio.gather(*(read(searcher.search(f"question {number}")) for number in range(50)))

        found = run(main)
        return {site: sorted(ends[site] for ends in found) for site in ("quick", "slow")}

    alone = ends_of_others()
    assert {state for state, _ in alone["quick"]} == {FOUND}
    assert ends_of_others(hung=HUNG) == alone
    assert ends_of_others(hung=HUNG, hung_too=HUNG) == alone


def test_results_come_as_soon_as_they_are_there():
    world = World(quick=0.05, slow=1.5, hung=HUNG)

    async def main():
        async with world.searcher() as searcher:
            return await read(searcher.search("canal"))

    assert run(main) == {"quick": (FOUND, 0.05), "slow": (FOUND, 1.5), "hung": (TIMED_OUT, 2.0)}


def test_who_waits_too_long_in_the_line_is_told_so():
    world = World(slow=1.9)

    async def main():
        async with world.searcher(at_once=1) as searcher:
            return await asyncio.gather(*(read(searcher.search(f"question {number}")) for number in range(5)))

    ends = [each["slow"] for each in run(main)]
    assert [state for state, _ in ends] == [FOUND, FOUND, FOUND, TIMED_OUT, TIMED_OUT]
    assert ends[3][1] == ends[4][1] == 6.0


def test_one_who_asks_a_lot_does_not_keep_others_waiting():
    world = World(site=0.1)

    async def main():
        async with world.searcher(at_once=1, per_second=1000.0) as searcher:
            greedy = [searcher.search(f"greedy {number}", "greedy", 1000.0) for number in range(200)]
            reading = [asyncio.create_task(read(each)) for each in greedy]
            await asyncio.sleep(1)
            ends = await read(searcher.search("modest", "modest"))
            for each in reading:
                each.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            return ends

    state, seconds = run(main)["site"]
    assert state == FOUND
    assert seconds <= 0.3, "behind the one that is being asked, and one turn of the other"


def test_a_search_that_nobody_reads_any_more_costs_nothing():
    world = World(slow=1.0)

    async def main():
        async with world.searcher(at_once=2) as searcher:
            searches = [searcher.search(f"gone {number}") for number in range(50)]
            await asyncio.sleep(0.1)
            for search in searches:
                search.stop()
            assert await read(searcher.search("here")) == {"slow": (FOUND, 1.0)}, "at once: their places are free"
            await asyncio.sleep(0)
            assert world.running["slow"] == 0
            pipeline = searcher.pipelines["slow"]
            assert pipeline.current.in_flight == 0

    run(main)
    assert len(world.asked) == 3, "two that were under way when they left, and the one that stayed"


def test_the_same_question_at_the_same_time_is_asked_once():
    world = World(site=0.5)

    async def main():
        async with world.searcher() as searcher:
            return await asyncio.gather(*(read(searcher.search("canal")) for _ in range(20)))

    assert run(main) == [{"site": (FOUND, 0.5)}] * 20
    assert world.asked == [("site", "canal")]


def test_who_leaves_does_not_cancel_the_call_that_another_one_shares():
    world = World(site=1.0)

    async def main():
        async with world.searcher() as searcher:
            gone, here = searcher.search("canal"), searcher.search("canal")
            await asyncio.sleep(0.5)
            gone.stop()
            return await read(here)

    assert run(main) == {"site": (FOUND, 1.0)}
    assert world.asked == [("site", "canal")]


# -- over real sockets -------------------------------------------------------------------------------------------------


async def events(answer):
    """Give the events of a stream."""
    event = ""
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            event = text.removeprefix("event: ")
        elif text.startswith("data: "):
            yield event, json.loads(text.removeprefix("data: "))


async def ends(session, address, question):
    found: dict[str, Any] = {}
    async with session.get(address + "search", params={"q": question}) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        async for event, data in events(answer):
            if event == "done":
                return found
            if event == "news" and data["state"] != ASKING:
                found[data["site"]] = data
    raise AssertionError("the stream ended before its end")


@contextlib.asynccontextmanager
async def served():
    app = LiveSearch(port=0)
    app.sites.slowness = 0.1
    async with app, ClientSession() as session:
        assert app.web is not None
        yield app, session, f"http://127.0.0.1:{app.web.port}/"


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.slow
def test_fifty_readers_at_a_time_are_served_and_the_sites_are_asked_as_they_allow(capsys):
    async def main():
        async with served() as (app, session, address):
            found = await asyncio.gather(*(ends(session, address, f"canal {number}") for number in range(50)))
            for each in found:
                assert set(each) == {site.name for site in SITES}
                assert {each[name]["state"] for name in ("forum", "museum")} <= {FAILED, TIMED_OUT, NOT_ASKED}
                assert len(each["wiki"]["results"]) in (0, HITS["wiki"])
            answered = Counter(name for each in found for name, news in each.items() if news["state"] == FOUND)
            assert answered["wiki"] >= 25, "some may have waited too long in the line: 20 a second"
            for site in SITES:
                assert 0 < app.sites.most[site.name] <= site.at_once
            await until(lambda: not sum(app.sites.running.values()))
            assert app.web.open == 0

    asyncio.run(main())
    assert capsys.readouterr().out.startswith("live search: http://127.0.0.1:")


@pytest.mark.slow
def test_a_reader_who_leaves_frees_what_the_search_has_taken(capsys):
    async def main():
        async with served() as (app, session, address):
            answer = await session.get(address + "search", params={"q": "canal"})
            await until(lambda: app.sites.running["museum"])
            answer.close()
            await until(lambda: not app.web.open)
            await until(lambda: not sum(app.sites.running.values()))
            assert app.sites.left["museum"] == 1
            for pipeline in app.searcher.pipelines.values():
                await until(lambda pipeline=pipeline: not pipeline.current.in_flight)

    asyncio.run(main())
    capsys.readouterr()


@pytest.mark.slow
def test_the_page_allows_no_script_but_its_own(capsys):
    async def main():
        async with served() as (_, session, address):
            for path in ("", "style.css", "search.js", "icon.svg", "search?q=x"):
                async with session.get(address + path) as answer:
                    assert answer.status == 200
                    policy = answer.headers["Content-Security-Policy"]
                    assert "default-src 'none'; script-src 'self'" in policy
                    assert "unsafe" not in policy
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    if not path:
                        cookie = answer.cookies["user"]
                        assert cookie["httponly"]
                        assert cookie["samesite"] == "Strict"
            for path in ("page/index.html", "..%2fweb.py", "web.py"):
                async with session.get(address + path) as answer:
                    assert answer.status == 404
            for question in ("", "%20", "x" * 201):
                async with session.get(address + "search?q=" + question) as answer:
                    assert answer.status == 400

    asyncio.run(main())
    capsys.readouterr()


# -- what the page is made of ------------------------------------------------------------------------------------------


def test_the_page_has_no_inline_script_or_style_and_loads_nothing_from_elsewhere():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=\"/search\.js\")", html)
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", html)
    script = (PAGE / "search.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    for name in ("index.html", "style.css", "search.js"):
        assert not re.search(r"(src|href|url)[=(]\s*[\"']?https?://", (PAGE / name).read_text(encoding="utf-8"))


def luminance(colour):
    text = colour if len(colour) == 7 else "#" + "".join(2 * each for each in colour[1:])
    parts = [int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(scheme):
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    styles = (PAGE / "style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", styles, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", {"light": light, "dark": dark}[scheme]))
    pairs = [("ink", "paper"), ("ink", "ground"), ("soft", "paper"), ("soft", "ground"), ("brand", "paper")]
    pairs += [("brand", "ground"), ("brand-ink", "brand"), ("good", "paper")]
    pairs += [(each, f"{each}-ground") for each in ("good", "bad", "late", "busy")]
    for text, ground in pairs:
        bright, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (bright + 0.05) / (low + 0.05) >= 4.5, (text, ground)
