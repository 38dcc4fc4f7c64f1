"""Links of mails lead through our door where they should, everything else stays as it was, and nothing breaks out."""

import re
from html import escape, unescape
from html.parser import HTMLParser
from itertools import count
from time import perf_counter
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.links import LINKS_MAX, read_html, read_text, rewrite_html, rewrite_text, web_url

DOOR = "https://t.example/t/c/"
PIXEL = "https://t.example/t/o/x"


def rewritten(html: str) -> str:
    """The HTML with each link as `…/t/c/<number>`."""
    numbers = count(1)
    return rewrite_html(read_html(html), lambda url: f"{DOOR}{next(numbers)}")


def targets(html: str) -> list[str]:
    """The targets that are found to be rewritten."""
    return [link.url for link in read_html(html).links]


class Reader(HTMLParser):
    """Python's own reader, which knows nothing of ours: every tag with its attributes, and all else."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rest: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(reversed(attrs))))

    def handle_endtag(self, tag: str) -> None:
        self.rest.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.rest.append(data)

    def handle_comment(self, data: str) -> None:
        self.rest.append(f"!{data}")


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<a href="https://a.b/c?x=1&amp;y=2">', ["https://a.b/c?x=1&y=2"]),
        ('<a href="https://a.b/?a=1&copy=2&copy;&#x41;&#66;&notit">', ["https://a.b/?a=1&copy=2%C2%A9AB&notit"]),
        ("<A\nHREF = 'http://a.b'>", ["http://a.b"]),
        ("<a href=http://a.b/c>", ["http://a.b/c"]),
        ("<area shape=rect href=http://a.b>", ["http://a.b"]),
        ("<a title=it's href=http://a.b>", ["http://a.b"]),
        ('<a href="http://first.example" href="http://second.example">', ["http://first.example"]),
        ('<a href=" http://a.b/c\n ">', ["http://a.b/c"]),
        ('<a href="http://bücher.example/ä b">', ["http://xn--bcher-kva.example/%C3%A4%20b"]),
        ('<a href="https://straße.de:8/x">', ["https://xn--strae-oqa.de:8/x"]),
        ('<a href="HTTP://A.b:81/">', ["http://a.b:81/"]),
        ('<a href="http://[::1]:8080/x">', ["http://[::1]:8080/x"]),
        ('<!--[if !mso]><!--><a href="http://a.b"><!--<![endif]-->', ["http://a.b"]),
        ('<!--><a href="http://a.b">', ["http://a.b"]),
        ('<! x><? y></ z><a/href="http://a.b"/>', ["http://a.b"]),
        *(
            (f'<a href="{url}">', [])
            for url in (
                *("mailto:a@b.c", "tel:+49123", "#top", "/path", "path", "", "//a.b/c", "javascript:alert(1)"),
                *("http:", "http://", "http:/a.b", "http://a@b.c", "http://a.b:x/", "http://a.b\\@c.d", "ftp://a.b"),
                *("http://a b/", "http://" + "a" * 2_048, "http://[::1", "http://a.b&quot;onclick=x/", "&#104;ttps:x"),
                *("https://☃.net/", "https://a\u200db.de/", "https://" + "ä" * 256 + ".de/"),
            )
        ),
        ('<a data-untracked href="http://a.b">', []),
        ('<a href="http://a.b" DATA-UNTRACKED="">', []),
        ('<!-- <a href="http://a.b"> -->', []),
        ('<style>/* <a href="http://a.b"> */</style>', []),
        ('<SCRIPT>"<a href=http://a.b>"</SCRIPT>', []),
        ('<img alt="<a href=http://a.b>" src=x>', []),
        ('<link href="http://a.b"><base href="http://a.b">', []),
        ("<abbr href=http://a.b><a", []),
        ('<a href="http://a.b', []),
        ("<!-- <a href=http://a.b>", []),
    ],
)
def test_what_is_a_link(html: str, found: list[str]) -> None:
    """A web address in a link's first `href` is found, as a browser reads it; whatever else looks like one is not."""
    assert targets(html) == found
    if not found:
        assert rewritten(html) == html


words = st.text(st.sampled_from("ab <>&\"'=/-!é\n"), max_size=12)
urls = st.sampled_from(
    [
        "https://a.b/c",
        "http://shop.example/?q=1&r=2",
        "https://a.b/#x",
        "mailto:a@b.c",
        "#top",
        "/x",
        "javascript:x",
        "",
    ]
)
quotes = st.sampled_from(['"', "'"])


@st.composite
def pieces(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A piece of HTML, and the links in it that are to be rewritten."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return escape(draw(words)), []
    if kind == 1:
        text = draw(words).replace("-", "").replace(">", "")
        return f"<!-- {text} <a href='http://in.comment'> -->", []
    if kind == 2:
        return "<style>a > b { content: '<a href=http://in.style>' }</style>", []
    quote = draw(quotes)
    name, url = draw(st.sampled_from(["a", "A", "b", "img", "abbr"])), draw(urls)
    attributes = [f"title={quote}{escape(draw(words))}{quote}", f"href={quote}{escape(url)}{quote}", "data-x"]
    is_out = draw(st.booleans())
    html = f"<{name} {' '.join(draw(st.permutations(attributes + ['data-untracked'] * is_out)))}>"
    counts = name in "aA" and url.startswith("http") and not is_out
    return html, [url] * counts


@given(st.lists(pieces(), max_size=10))
def test_only_links_change(parts: list[tuple[str, list[str]]]) -> None:
    """To a reader that is not ours a rewritten page has the same tags, attributes and texts, but for the links."""
    html, wanted = "".join(part for part, _ in parts), [url for _, found in parts for url in found]
    before, after = Reader(html), Reader(rewritten(html))
    given_back = [attributes["href"] for _, attributes in after.tags if (attributes.get("href") or "").startswith(DOOR)]

    assert targets(html) == wanted
    assert given_back == [f"{DOOR}{number + 1}" for number in range(len(wanted))]
    assert after.rest == before.rest
    old, new = ([(tag, {**rest, "href": None}) for tag, rest in reader.tags] for reader in (before, after))
    assert old == new


@given(st.text(st.sampled_from("<>a/h!-'\"= \nref:tp.&#;\\b"), max_size=60), st.text(max_size=10))
def test_no_text_breaks_out(html: str, more: str) -> None:
    """Whatever a user's values make of a page, what is put in stands where a target stood, in quotes of its own."""
    text = f"{html}{more}<a href=http://a.b>{html}"
    page = read_html(text)
    result = rewrite_html(page, lambda url: DOOR + "x")

    at, pieces = 0, []
    for link in page.links:
        assert at <= link.start < link.end <= len(text)
        target = text[link.start : link.end]
        assert web_url(unescape(target.strip("\"'"))) is not None
        pieces += [text[at : link.start], f'"{DOOR}x"']
        at = link.end
    assert result == "".join([*pieces, text[at:]])


INTERNATIONAL = {"bücher.example": "xn--bcher-kva.example", "faß.de": "xn--fa-hia.de"}
hosts = st.sampled_from(["a.b", "shop.example", "xn--bcher-kva.example", *INTERNATIONAL, "127.0.0.1", "[::1]"])


@given(hosts, st.text(max_size=60))
def test_a_target_stays_where_it_was(host: str, rest: str) -> None:
    """A rewritten link leads to the host that its author wrote, and is fit for a header: ASCII, without controls."""
    url = web_url(f"https://{host}/{rest}")

    assert url is not None
    assert urlsplit(url).hostname == INTERNATIONAL.get(host, host.strip("[]"))
    assert re.fullmatch(r"[\x21-\x7e]+", url)
    assert web_url(url) == url


@given(st.text(max_size=200))
def test_no_other_text_is_a_target(text: str) -> None:
    """Whatever is taken for a web address names a host by http or https, without a user in front of it."""
    url = web_url(text)
    if url is not None:
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        assert "@" not in parts.netloc


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("See http://a.b/c.", f"See {DOOR}x."),
        ("(http://a.b/c), http://a.b/(c)!", f"({DOOR}x), {DOOR}x!"),
        ("<https://a.b>", f"<{DOOR}x>"),
        ("mailto:a@b.c a.b/c ftp://a.b https://", "mailto:a@b.c a.b/c ftp://a.b https://"),
    ],
)
def test_links_of_plain_text(text: str, result: str) -> None:
    """Web addresses in plain text are replaced without the marks behind them; nothing else is."""
    assert rewrite_text(read_text(text), lambda url: DOOR + "x") == result


@pytest.mark.parametrize(
    ("text", "url"),
    [
        *(("请访问[https://x.com/sale]\uff0c优惠截止到周五。谢谢\uff01回复T退订", "https://x.com/sale"),),
        *(
            ("[https://x.com/sale]をご覧ください。", "https://x.com/sale"),
            ("[https://x.com]을 보세요.", "https://x.com"),
        ),
        *(("Siehe „[https://x.com/a]“.", "https://x.com/a"), ("«[https://x.com/a]»", "https://x.com/a")),
        *(
            ("[https://x.com]…", "https://x.com"),
            ("[https://x.com:81]、", "https://x.com:81"),
            ("[http://a.b]🎉", "http://a.b"),
        ),
        *(
            ("\uff08[https://x.com/a?b=1#c]\uff09", "https://x.com/a?b=1#c"),
            ("[https://x.com/a]🎉!", "https://x.com/a"),
        ),
        *(("[https://x.com/a].\u00a0Dann", "https://x.com/a"), ("([https://x.com/a])を", "https://x.com/a")),
        *(("[https://bücher.example/ä]!", "https://xn--bcher-kva.example/%C3%A4"),),
        *(("[https://пример.рф/обувь]»", "https://xn--e1afmkfd.xn--p1ai/%D0%BE%D0%B1%D1%83%D0%B2%D1%8C"),),
        *(
            ("[https://日本語.jp]です", "https://xn--wgv71a119e.jp"),
            ("[https://例え.テスト/]。", "https://xn--r8jz45g.xn--zckzah/"),
        ),
        *(("[https://paral·lel.cat]…", "https://xn--parallel-koa.cat"),),
        ("[https://उदाहरण.परीक्षा] और", "https://xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g"),
    ],
)
def test_a_link_ends_where_the_sentence_goes_on(text: str, url: str) -> None:
    """In each script a link of a plain text ends before the marks and words behind it, which stay."""
    before, _, rest = text.partition("[")
    shown, _, behind = rest.partition("]")
    plain = read_text(before + shown + behind)

    assert [link.url for link in plain.links] == [url]
    assert rewrite_text(plain, lambda url: DOOR) == before + DOOR + behind


@pytest.mark.parametrize(
    "text",
    [
        *(
            "https://ja.wikipedia.org/wiki/東京",
            "https://x.com/をご覧",
            "https://x.com/?q=東京",
            "https://x.com/a–b http",
        ),
        *(
            "https://日本語。jp/x",
            "https://www.x。com",
            "https://münchen/",
            "https://www.i❤.ws/x",
            "https://x.com/Rock’n’Roll",
        ),
        *("https://ann@x.comを", "https://käse,x.example"),
    ],
)
def test_a_link_whose_end_cannot_be_told_is_left_alone(text: str) -> None:
    """Where a sentence may go on, or the address, nothing is changed, so that it leads where its author wrote."""
    assert read_text(text).links == ()


@given(st.text(st.sampled_from("htps:/.a?#\\@ <>\"'()!\n"), max_size=40))
def test_links_of_ascii_end_at_spaces_and_delimiters(more: str) -> None:
    """In ASCII every run of what can stand in an address is one, as far as it is an address at all."""
    text = f"http://a.b{more}"
    runs = re.findall(r"https?://[^\s<>\"]+", text)
    found = [text[link.start : link.end] for link in read_text(text).links]

    assert all(any(run.startswith(each) for run in runs) for each in found)
    assert len(found) == sum(web_url(run.rstrip(".,;:!?'*_~)")) is not None for run in runs)


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_behind_a_link_is_lost(before: str, behind: str) -> None:
    """Whatever surrounds a link, what is put in stands where it stood, and what is behind a space stays."""
    text = f"{before} https://x.com/sale {behind}"
    plain = read_text(text)
    at, pieces = 0, []
    for link in plain.links:
        assert at <= link.start < link.end <= len(text)
        assert not re.search(r"\s", text[link.start : link.end])
        pieces += [text[at : link.start], DOOR]
        at = link.end

    assert rewrite_text(plain, lambda url: DOOR) == "".join([*pieces, text[at:]])
    assert f" {DOOR} " in rewrite_text(plain, lambda url: DOOR)


@pytest.mark.parametrize(
    ("html", "result"),
    [
        ("<body>x</body></html>", "<body>x{}</body></html>"),
        ("x", "x{}"),
        ("<p></BODY >", "<p>{}</BODY >"),
        ("<!-- </body> -->x", "<!-- </body> -->x{}"),
        ("x<!-- open", "x<!-- open"),
        ("x<a href='http://a.b", "x<a href='http://a.b"),
        ("<style>x", "<style>x"),
        ("<plaintext>x", "<plaintext>x"),
    ],
)
def test_where_the_pixel_stands(html: str, result: str) -> None:
    """The image stands at the end of the body, and nowhere if the page ends inside something left open."""
    image = f'<img src="{PIXEL}" width="1" height="1" alt="" style="display:block;border:0">'

    assert rewrite_html(read_html(html), lambda url: url, PIXEL) == result.format(image)


def test_a_page_has_so_many_links() -> None:
    """Beyond a thousand links of one mail the rest leads where it led."""
    html = '<a href="http://a.b">' * (LINKS_MAX + 5)

    assert rewritten(html).count(DOOR) == LINKS_MAX
    assert rewritten(html).count("http://a.b") == 5


EVIL = (
    *("<a " + "x=" * 50_000, "<" * 100_000, "<a " + '"' * 100_000, "<!--" + "-" * 100_000, "<a" + " a" * 100_000),
    *('<a href="' + "&#" * 50_000 + '">', "<!--" * 30_000, "<script></style" * 20_000, "http://" + "a)" * 50_000),
    *(
        "https://a\uff0c" * 10_000,
        "https://a.b\uff0c" * 10_000,
        "https://ä" * 10_000,
        "https://a.b/ä" * 10_000,
        "https://" * 12_000,
    ),
    *("https://a.を" * 10_000, "https://ä.b" + ".ä" * 50_000),
    *('<a href="http://x.y"' * 5_000, "http://x.y/" + "]" * 100_000, "&" * 100_000, "</a" + " a" * 50_000 + "<"),
)


@pytest.mark.parametrize("text", EVIL, ids=lambda text: text[:8])
def test_no_text_is_slow_to_read(text: str) -> None:
    """A hundred kilobytes made to be hard are read in time that grows with their length."""
    began = perf_counter()
    read_html(text)
    read_text(text)

    assert perf_counter() - began < 2
