"""tokens.txt: a line `<token> <id>` for each token that a model knows."""

from pathlib import Path

from pipeline.errors import DataError


def read_tokens(path: Path, key: str) -> dict[str, int]:
    """Return token -> id, in the order of the file. A line that holds an id alone is the token of a space.

    Args:
        path: the file.
        key: the config key that names it, for messages.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or a line is not `<token> <id>`, or a token or an id is there twice.
    """
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path}: a line '<token> <id>' for each token of the model.")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{key}: {path} is not UTF-8 text ({error}).") from error
    table: dict[str, int] = {}
    ids: set[int] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        token, _, index = line.rstrip("\r\n\t ").replace("\t", " ").rpartition(" ")
        if not index.isdigit():
            raise DataError(f"{key}: {path}, line {number}: expected '<token> <id>', found {line!r}.")
        token = token or " "
        if token in table or int(index) in ids:
            raise DataError(f"{key}: {path}, line {number}: the token {token!r} or its id {index} is there twice.")
        table[token] = int(index)
        ids.add(int(index))
    if not table:
        raise DataError(f"{key}: {path} is empty; a line '<token> <id>' is needed for each token of the model.")
    return table


def with_blanks(tokens: list[int], pad: int) -> list[int]:
    """Return tokens with a blank before, between and after them: what Matcha was trained on."""
    spread = [pad] * (2 * len(tokens) + 1)
    spread[1::2] = tokens
    return spread
