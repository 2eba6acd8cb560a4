"""A page as its tests read it."""

from html.parser import HTMLParser

from pipeline.report.html.run_page import write_page
from pipeline.report.report_file import report_from_json


def page_of(report, directory):
    """Return the text of the page of a report.json."""
    return write_page(report_from_json(report, "report"), directory)


VOID = {"wbr", "meta", "link", "br", "img", "hr", "input", "source"}


class Page(HTMLParser):
    """A page, read: its elements, its text, and what is not balanced."""

    def __init__(self, text):
        """Read a page."""
        super().__init__()
        self.text = text
        self.elements = []  # (tag, attributes, text inside)
        self.unbalanced = []
        self._open = []
        self.feed(text)
        self.close()
        self.unbalanced += [element[0] for element in self._open]

    def handle_starttag(self, tag, attrs):
        """Open an element."""
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        """Note an element that closes itself."""
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        """Close an element."""
        if not self._open or self._open[-1][0] != tag:
            self.unbalanced.append(f"/{tag}")
        else:
            self._open.pop()

    def handle_data(self, data):
        """Add text to every open element."""
        for element in self._open:
            element[2].append(data)

    def all(self, *tags):
        """Return (attributes, text) of the elements with one of these tags."""
        return [(attributes, " ".join("".join(text).split())) for tag, attributes, text in self.elements if tag in tags]

    def texts(self, *tags):
        """Return the text of these elements."""
        return [text for _, text in self.all(*tags)]
