import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from serried.display.page import page
from serried.display.spec import Bar, Section, Span, Stack

VOID = {"meta", "br", "rect", "line"}


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def _sections(word="gap"):
    return [Section(title=word, text=word, bars=[Bar(label=word, value=3.0, kind="level"), Bar(label="b", value=-1.0)]),
            Section(title="step", spans=[Span(row=word, start_s=0.0, duration_s=1.0, cause=word)]),
            Section(title="memory", stacks=[Stack(label=word, parts=[(word, 7e10)], limit=8e10)]),
            Section(title="table", header=["a", "b"], rows=[[word, "1"]])]


@given(st.text(max_size=30))
def test_any_word_makes_a_page_that_closes_what_it_opens(word):
    balance = _Balance()
    balance.feed(page(word, word, _sections(word), footer=word))
    assert balance.open == []


def test_the_page_needs_nothing_but_itself():
    text = page("t", "lead", _sections(), footer="f")
    assert not re.search(r"(src|href)=|@import|url\(|<script|http", text)


def test_hostile_names_stay_words():
    assert "<script>" not in page("<script>alert(1)</script>", "", _sections("<script>"))
