"""Tables that fit the terminal: what does not fit side by side stands below each other, and nothing is cut.

As a table where there is room for all of it, without its less important columns where there is room for the others, and else
row by row: the name of a row, and below it `column value; column value`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pipeline.record.console import Paragraph, wrapped

GAP = 2  # columns of the terminal between two of the table: one of padding, and the divider of the box
INDENT = "  "

Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its header; what stands before a value where rows stand below each other.
        left: whether its cells are aligned to the left; numbers are to the right.
        names: whether it is the name of a row, or a part of it.
        optional: whether it may be left out where the terminal is narrow; what it says is then said without it.
    """

    name: str
    left: bool = False
    names: bool = False
    optional: bool = False


@dataclass
class FittedTable:
    """A table for terminals of any width.

    Attributes:
        title: what it shows.
        columns: from left to right.
        rows: a cell for each column, plain or styled; never markup.
        styles: of rows, by their index.
        captions: sentences below it.
    """

    title: str
    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    styles: dict[int, str] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)

    def add(self, *cells: Cell, style: str = "") -> None:
        """Add a row."""
        if style:
            self.styles[len(self.rows)] = style
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title, the rows and the captions, and an empty line."""
        width = options.max_width
        yield Paragraph(self.title, "bold")
        shown = next((columns for columns in self._choices() if self._width(columns) <= width), None)
        if shown is not None:
            yield self._side_by_side(shown)
        else:
            for index in range(len(self.rows)):
                yield from self._below_each_other(index, width)
        for caption in self.captions:
            yield Paragraph(caption, "dim")
        yield Text()

    def _choices(self) -> Iterator[list[int]]:
        """Yield what may be shown side by side: all columns, then without the last optional one, without the last two, ..."""
        columns = list(range(len(self.columns)))
        yield columns
        for index in reversed(range(len(self.columns))):
            if self.columns[index].optional:
                columns = [column for column in columns if column != index]
                yield columns

    def _width(self, columns: Sequence[int]) -> int:
        """Return how wide a table of these columns is."""
        return sum(self._column_width(column) for column in columns) + GAP * (len(columns) - 1)

    def _column_width(self, column: int) -> int:
        lines = [line for row in self.rows for line in _plain(row[column]).split("\n")]
        return max(cell_len(line) for line in [self.columns[column].name, *lines])

    def _side_by_side(self, columns: Sequence[int]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        for index in columns:
            column = self.columns[index]
            table.add_column(Text(column.name), justify="left" if column.left else "right", no_wrap=True)
        for number, row in enumerate(self.rows):
            table.add_row(*(_text(row[index]) for index in columns), style=self.styles.get(number))
        return table

    def _below_each_other(self, number: int, width: int) -> list[Text]:
        """Return one row: its name, then its cells, as many to a line as fit."""
        row, style = self.rows[number], self.styles.get(number, "")
        names = [_text(cell) for column, cell in zip(self.columns, row, strict=True) if column.names and _plain(cell)]
        values = [
            Text.assemble(f"{column.name} " if column.name else "", _text(cell))
            for column, cell in zip(self.columns, row, strict=True)
            if not column.names and _plain(cell)
        ]
        lines = [Text(" ").join(names)] if names else []
        if lines:
            lines[0].stylize("bold")
        lines += [_indented(line) for line in _packed(values, width - len(INDENT))]
        for line in lines:
            line.stylize_before(style)
            line.no_wrap, line.overflow = True, "ignore"
        return lines


def _packed(values: Sequence[Text], width: int) -> list[Text]:
    """Return lines of values with semicolons between them; a value that is longer than a line is broken at commas or spaces."""
    lines: list[Text] = []
    for number, value in enumerate(values):
        ended = Text.assemble(value, ";" if number + 1 < len(values) else "")
        if lines and lines[-1].cell_len + 1 + ended.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], " ", ended)
        elif ended.cell_len <= width and "\n" not in ended.plain:
            lines.append(ended)
        else:
            for part in ended.plain.replace(", ", ",\n").split("\n"):
                if lines and lines[-1].plain.endswith(",") and lines[-1].cell_len + 1 + cell_len(part) <= width:
                    lines[-1].append(f" {part}")
                else:
                    lines += [Text(line) for line in wrapped(part, width)]
    return lines


def _indented(line: Text) -> Text:
    return Text.assemble(INDENT, line)


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell


def _text(cell: Cell) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(cell)
