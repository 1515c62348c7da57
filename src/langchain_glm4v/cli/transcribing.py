"""`glm4v transcribe`."""

import argparse
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Self, TypeAlias

from langchain_glm4v.cli.exits import PAGES_FAILED
from langchain_glm4v.cli.model import (
    add_allow_host,
    add_answering,
    add_model,
    answering,
    asked_model,
)
from langchain_glm4v.cli.terminal import clock, harmless, print_json, say, table
from langchain_glm4v.cli.values import whole
from langchain_glm4v.errors import MediaError
from langchain_glm4v.media.budget import CELL
from langchain_glm4v.media.document import LONGEST_SIDE, check_pages
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.transcription import checks, outputs, sources
from langchain_glm4v.transcription.cache import PageCache
from langchain_glm4v.transcription.records import NOTHING, DocumentFacts, PageResult
from langchain_glm4v.transcription.searchable import write_searchable
from langchain_glm4v.transcription.sources import Rendering, Source
from langchain_glm4v.transcription.transcriber import JSON_PROMPT, PROMPT, Options, Transcriber

STANDARD_OUTPUT = "-"
JSONL = ".jsonl"
CACHE = ".glm4v-pages.sqlite"
LINE_EVERY = 10.0  # seconds, where the output is no terminal
REDRAWN_EVERY = 0.1  # seconds, where it is one
LOOKS_BACK = 30.0  # seconds over which the speed is measured
WIDTH = 80  # columns of a terminal that does not tell

Form: TypeAlias = Callable[[Iterable[PageResult]], Iterator[str]]
Results: TypeAlias = Iterator[PageResult]
Write: TypeAlias = Callable[[Path, Results], None]
"""Writes the pages of a document."""

# Names that end so are meant for files, and OUT may be a folder.
_OF_FILES = (".md", ".json", JSONL, ".pdf", ".txt", ".html", ".csv")
# What became of pages -> how the summary calls it.
BECAME: Mapping[str, str] = {
    "read": "read by the model",
    "from_cache": "from the cache",
    "text_layer": "from the document's own text",
    "blank": "blank",
    "failed": "failed",
}


def _path(text: str) -> str:
    """Reads what must not be empty: that would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def _pages(text: str) -> str:
    """Reads numbers of pages."""
    try:
        check_pages(text)
    except MediaError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _scripts(text: str) -> list[str]:
    """Reads names of scripts."""
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if not checks.is_script(name):
            raise argparse.ArgumentTypeError(f"{name!r} is no script such as latin, cjk or hangul")
    return names


def _schema(text: str) -> dict[str, Any]:
    """Reads a JSON schema from a file."""
    try:
        schema = json.loads(Path(text).read_bytes())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"no JSON can be read from {text!r}: {error}") from error
    if not isinstance(schema, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON schema: it must be an object")
    return schema


def _password(text: str) -> str:
    """Reads a password from a file, which may end in a line feed."""
    try:
        password = Path(text).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        message = f"no password can be read from {text!r}: {error}"
        raise argparse.ArgumentTypeError(message) from error
    if not password:
        raise argparse.ArgumentTypeError(f"{text!r} is empty")
    return password


def _add(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [OPTION ...] IN [IN ...] -o OUT"
    parser.add_argument(
        "inputs",
        nargs="+",
        type=_path,
        metavar="IN",
        help="documents and pictures: files, folders with all below them, patterns, URLs",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=_path,
        metavar="OUT",
        help=f"a folder, for a file of each document; a file *{JSONL}, for all of them; "
        f"{STANDARD_OUTPUT} for standard output",
    )
    parser.add_argument(
        "--format",
        choices=list(SUFFIXES),
        help=f"pdf: the scans with the text behind them, to be searched. Default: jsonl with "
        f"--schema or if OUT ends in {JSONL}, else markdown",
    )
    parser.add_argument(
        "--schema", type=_schema, metavar="FILE", help="JSON schema: each page is read as JSON"
    )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help=f"what the model is asked. Default: {PROMPT} With --schema: {JSON_PROMPT}",
    )
    add_model(parser)
    add_answering(parser)
    _add_pages(parser)
    parser.add_argument(
        "--max-concurrency",
        type=whole(1),
        default=Options.max_concurrency,
        metavar="N",
        help="requests at once, at most; as many are made as the server can answer. "
        "Default: %(default)s",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep pages that were read, and read none of them again. Default: --resume",
    )
    parser.add_argument(
        "--cache",
        type=_path,
        metavar="FILE",
        help=f"where they are kept. Default: {CACHE} in the folder of the output; for standard "
        "output none are",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_pages(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options of pages")
    group.add_argument("--pages", type=_pages, help="of each document: such as 1,3,5-7")
    group.add_argument(
        "--password-file",
        type=_password,
        metavar="FILE",
        help="file with the password of encrypted documents",
    )
    group.add_argument("--password", help=argparse.SUPPRESS)
    group.add_argument(
        "--text-layer",
        choices=("auto", "ignore"),
        default=Options.text_layer,
        help="auto: do not ask the model where a page has good text of its own. "
        "Default: %(default)s",
    )
    group.add_argument(
        "--scripts",
        type=_scripts,
        default=(),
        metavar="NAMES",
        help="that are expected, such as cjk or latin,cyrillic; a page in another failed",
    )
    group.add_argument(
        "--longest-side",
        type=whole(CELL),
        default=LONGEST_SIDE,
        metavar="PIXELS",
        help="of pages of documents. Default: %(default)s",
    )
    add_allow_host(group)


# How pages are written -> how names of files end.
SUFFIXES: Mapping[str, str] = {"markdown": ".md", "jsonl": JSONL, "pdf": ".pdf"}
FORMS: Mapping[str, Form] = {"markdown": outputs.as_markdown, "jsonl": outputs.as_jsonl}
PRINTED: Mapping[str, Form] = {**FORMS, "jsonl": partial(outputs.as_jsonl, in_ascii=True)}


def _transcribe(args: argparse.Namespace) -> int:
    if args.password is not None:
        args.misused("--password would show it to all users: give --password-file FILE")
    target = _target(args)
    found = _found(target, args)
    tally = Tally()
    write = _writer(target, found, tally, args)
    options = Options(
        prompt=args.prompt,
        schema=args.schema,
        rendering=Rendering(
            pages=args.pages, password=args.password_file, longest_side=args.longest_side
        ),
        text_layer=args.text_layer,
        scripts=args.scripts,
        max_concurrency=args.max_concurrency,
        cache=_cache(target, args),
    )
    if options.cache:
        PageCache(options.cache).close()  # that it cannot be used is told before all else
    fields = {**answering(args), "allow_hosts": tuple(args.allow_host)}
    with asked_model(args, fields) as model:
        try:
            with (
                Progress(len(found), options.rendering, is_shown=not args.quiet) as progress,
                closing(Transcriber(model, options).pages(found)) as results,
            ):
                write(progress.seen(tally.counted(results)))
        except BrokenPipeError:
            raise
        except BaseException:
            say(_how_to_go_on(options.cache))
            raise
    _tell(tally, args)
    return PAGES_FAILED if tally.failures else 0


@dataclass(frozen=True)
class Target:
    """Where pages go.

    Attributes:
        folder: Of the files that are written; None for standard output.
        file: The one file; None if each document has its own.
        form: How pages are written: a key of `SUFFIXES`.
    """

    folder: Path | None
    file: Path | None
    form: str


def _target(args: argparse.Namespace) -> Target:
    """Where pages go; ends the program if that is misused."""
    path = Path(args.output)
    is_file = path.suffix == JSONL and not path.is_dir()
    name = args.format or ("jsonl" if is_file or args.schema else "markdown")
    if name == "markdown" and (is_file or args.schema):
        args.misused("--format markdown is for a folder of texts: give --format jsonl")
    if name == "pdf" and (is_file or args.output == STANDARD_OUTPUT):
        args.misused("--format pdf is for a folder of PDFs: give a folder as OUT")
    if args.output == STANDARD_OUTPUT:
        if args.json:
            args.misused("--json and the pages would both go to standard output")
        return Target(None, None, name)
    if is_file:
        return Target(path.parent, path, name)
    if not path.is_dir() and (path.exists() or path.suffix.lower() in _OF_FILES):
        args.misused(f"{args.output!r} is no folder: give one, a file *{JSONL}, or -")
    return Target(path, None, name)


def _found(target: Target, args: argparse.Namespace) -> list[Source]:
    """What is to be read: no PDFs in OUT that an earlier run wrote, unless they are named."""
    found = [*sources.find(args.inputs)]
    if target.form != "pdf" or target.folder is None:
        return found
    folder = target.folder.resolve()
    named = {os.path.realpath(given) for given in args.inputs}
    others = [
        source
        for source in found
        if not isinstance(source.given, Path)
        or os.path.realpath(source.given) in named
        or not source.given.resolve().is_relative_to(folder)
    ]
    if not others:
        args.misused(f"all that is to be read is in {args.output!r}: choose another OUT")
    return [*sources.find(others)]


def _cache(target: Target, args: argparse.Namespace) -> Path | None:
    if args.cache:
        if not args.resume:
            args.misused("--cache and --no-resume do not go together")
        if target.file and target.file.resolve() == Path(args.cache).resolve():
            args.misused(f"{args.cache!r} is OUT too: give another file as --cache")
        return Path(args.cache)
    return target.folder / CACHE if args.resume and target.folder else None


def _how_to_go_on(cache: Path | None) -> str:
    if cache is None:
        return "stopped; no page was kept"
    return (
        f"stopped; pages that were read are in {str(cache)!r}: the same command goes on from there"
    )


def _writer(
    target: Target, found: Sequence[Source], tally: "Tally", args: argparse.Namespace
) -> Callable[[Results], None]:
    """What writes pages; ends the program if they would take the place of what is read."""
    if target.folder is None:
        return partial(_print, PRINTED[target.form])
    if target.file:
        paths = [target.file]
    else:
        paths = [target.folder / name for name in outputs.names(found, SUFFIXES[target.form])]
    if taken := outputs.first_read(paths, found):
        args.misused(f"{str(taken)!r} would be replaced, but it is to be read: choose another OUT")
    _open_folder(target.folder)
    if target.file:
        return partial(_write_one, FORMS[target.form], target.file)
    if target.form == "pdf":
        media = Preparation(allow_hosts=tuple(args.allow_host))
        write: Write = partial(_write_pdf, found, media, args.password_file)
    else:
        write = partial(_write_text, FORMS[target.form])
    return partial(_write_each, write, paths, tally)


def _open_folder(folder: Path) -> None:
    """Make a folder, and see that files can be written there before pages are paid for."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        outputs.remove_parts(folder)
        with outputs.part_folder(folder):
            pass
    except OSError as error:
        message = f"nothing can be written in {str(folder)!r}: {error}; choose another OUT"
        raise OSError(message) from error


def _print(form: Form, results: Results) -> None:
    is_terminal = sys.stdout.isatty()
    for text in form(results):
        sys.stdout.write(harmless(text) if is_terminal else text)
        sys.stdout.flush()


def _write_one(form: Form, path: Path, results: Results) -> None:
    with outputs.replacing(path) as file:
        file.writelines(form(results))


def _write_each(write: Write, paths: Sequence[Path], tally: "Tally", results: Results) -> None:
    for index, pages in groupby(results, key=lambda result: result.document.index):
        _write_document(write, paths[index], tally, pages)


def _write_document(write: Write, path: Path, tally: "Tally", pages: Results) -> None:
    first = next(pages)
    if not first.document.total_pages:  # it could not be opened
        return
    try:
        write(path, chain([first], pages))
    except (MediaError, OSError) as error:
        # The others can be written all the same, and the cache keeps what was read.
        remedy = "" if isinstance(error, MediaError) else "; free the disk, or choose another OUT"
        tally.failed(first.document, f"{str(path)!r} cannot be written: {error}{remedy}")


def _write_text(form: Form, path: Path, pages: Results) -> None:
    with outputs.replacing(path) as file:
        file.writelines(form(pages))


def _write_pdf(
    found: Sequence[Source], media: Preparation, password: str | None, path: Path, pages: Results
) -> None:
    first = next(pages)
    source = found[first.document.index]
    given = sources.content(source, media)
    whole = chain([first], pages)
    write_searchable(given, whole, path, password=password, name=source.name)


@dataclass
class Tally:
    """What became of pages.

    Attributes:
        documents: How many there were.
        pages: What became of them -> how many; the names are those of `BECAME`.
        failures: The pages that failed, without their texts, and the documents that could not be
            opened or written.
        input_tokens: Tokens of all prompts of this run.
        output_tokens: Tokens of all outputs of this run.
        began: When the reading began, by `time.monotonic()`: a server may have been started before.
    """

    documents: int = 0
    pages: Counter[str] = field(default_factory=Counter)
    failures: list[PageResult] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    began: float = field(default_factory=time.monotonic)

    def counted(self, results: Iterable[PageResult]) -> Results:
        """The pages, each counted; the time before the first is asked for is not."""
        self.began = time.monotonic()
        for result in results:
            self._add(result)
            yield result

    def _add(self, result: PageResult) -> None:
        self.documents = result.document.index + 1
        self.pages[_became(result)] += 1
        if not result.from_cache:
            self.input_tokens += result.reading.input_tokens
            self.output_tokens += result.reading.output_tokens
        if result.error:
            self.failures.append(replace(result, reading=NOTHING))

    def failed(self, document: DocumentFacts, error: str) -> None:
        """Note that the pages of a document were read in vain."""
        self.failures.append(
            PageResult(document=document, number=None, reading=NOTHING, error=error)
        )

    def summary(self) -> dict[str, Any]:
        """All of it, of JSON's types."""
        seconds = time.monotonic() - self.began
        return {
            "documents": self.documents,
            "pages": self.pages.total(),
            **{name: self.pages[name] for name in BECAME},
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "seconds": round(seconds, 3),
            "pages_per_s": round(self.pages.total() / seconds, 3),
            "failures": [
                {"source": failure.document.source, "page": failure.number, "error": failure.error}
                for failure in self.failures
            ],
        }


def _became(result: PageResult) -> str:
    if result.error:
        return "failed"
    if result.from_cache:
        return "from_cache"
    return {"text layer": "text_layer", "blank": "blank"}.get(result.reading.origin, "read")


def _tell(tally: Tally, args: argparse.Namespace) -> None:
    """Print the summary, and what failed."""
    found = tally.summary()
    if args.json:
        print_json(found)
    else:
        rows = [
            ("documents", f"{found['documents']:,}"),
            ("pages", f"{found['pages']:,}"),
            *((f"  {told}", f"{found[name]:,}") for name, told in BECAME.items()),
            ("tokens of prompts", f"{found['input_tokens']:,}"),
            ("tokens of answers", f"{found['output_tokens']:,}"),
            ("time", clock(found["seconds"])),
            ("pages a second", f"{found['pages_per_s']:,.4g}"),
        ]
        print(
            table(rows),
            file=sys.stderr if args.output == STANDARD_OUTPUT else sys.stdout,
            flush=True,
        )
    for failure in tally.failures:
        say(" ".join(f"{failure.name}: {failure.error}".split()))
    if tally.failures:
        say(f"glm4v: {len(tally.failures)} of {found['pages']} pages failed: see above")


class Progress:
    """How far it is, on standard error: a line that is rewritten, or lines now and then.

    Args:
        documents: How many there are.
        rendering: Which pages of each are wanted.
        is_shown: Whether anything is shown.
    """

    def __init__(self, documents: int, rendering: Rendering, *, is_shown: bool) -> None:
        self._documents = documents
        self._rendering = rendering
        self._is_shown = is_shown
        self._is_terminal = sys.stderr.isatty()
        self._opened = self._known = self._done = self._failed = 0
        now = time.monotonic()
        self._shown = now  # when the last line was
        self._past = deque([(now, 0)])  # when how many pages were done

    def seen(self, results: Iterable[PageResult]) -> Results:
        """The pages, each shown as done."""
        for result in results:
            self._add(result)
            yield result

    def __enter__(self) -> Self:
        self._show(time.monotonic())
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line as it is."""
        self._show(time.monotonic())
        if self._is_terminal and self._is_shown:
            say("")

    def _add(self, result: PageResult) -> None:
        document = result.document
        if document.index == self._opened:
            self._opened += 1
            count = document.total_pages
            self._known += len(self._rendering.numbers(count, document.source)) if count else 1
        self._done += 1
        self._failed += bool(result.error)
        now = time.monotonic()
        self._past.append((now, self._done))
        while now - self._past[0][0] > LOOKS_BACK and len(self._past) > 2:
            self._past.popleft()
        if now - self._shown >= (REDRAWN_EVERY if self._is_terminal else LINE_EVERY):
            self._show(now)

    def _show(self, now: float) -> None:
        if not self._is_shown:
            return
        self._shown = now
        if self._is_terminal:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or WIDTH
            sys.stderr.write(f"\r{self._line(now)[: width - 1]}\033[K")
            sys.stderr.flush()
        else:
            say(self._line(now))

    def _line(self, now: float) -> str:
        began, before = self._past[0]
        speed = (self._done - before) / max(now - began, REDRAWN_EVERY)
        # Those that are not opened yet may have as many pages as those that are.
        total = round(self._known * self._documents / max(self._opened, 1))
        about = "" if self._opened == self._documents else "~"
        parts = [
            f"{self._done}/{about}{total} pages" if self._opened else "no page yet",
            f"{self._opened} of {self._documents} documents",
            f"{speed:.1f} pages/s",
        ]
        if speed and self._opened:
            parts.append(f"{about}{clock((total - self._done) / speed)} left")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return ", ".join(parts)


COMMANDS: Mapping[str, Any] = {"transcribe": (_add, _transcribe)}
