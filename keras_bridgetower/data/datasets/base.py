"""`DataSet`: the base class of all readers, with splits and file checks."""

import abc
import dataclasses
import functools
import pathlib

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.records.shuffled import check_records
from keras_bridgetower.files import Below
from keras_bridgetower.files import read_json

# Errors of reading files of other content, besides the readers' own.
_OF_OTHER_CONTENT = (
    *(KeyError, TypeError, AttributeError, IndexError),
    # Arrow's, for types that it cannot convert.
    NotImplementedError,
)


def distinct_texts(samples):
    """Keep the first sample with each text."""
    first = {}
    for sample in samples:
        first.setdefault(sample.text, sample)
    return tuple(first.values())


# Functions from the samples of a record to those that a split keeps. Retrieval
# of COCO and Flickr30K uses five captions.
_KEEP = {
    "all": tuple,
    "distinct": distinct_texts,
    "first_five": lambda samples: samples[:5],
}


@dataclasses.dataclass(frozen=True)
class Split:
    """The parts of the original data that form a split.

    Args:
        parts: list of str, names of parts of the data set.
        words: str, a description of the split.
        leak: str, a description of other splits with the same samples; `""`
            if there are none.
        keep: str, the samples of a record to keep: `"all"`, those with
            `"distinct"` texts, or the `"first_five"`.
    """

    parts: list
    words: str
    leak: str = ""
    keep: str = "all"

    @property
    def definition(self):
        return self.words + (f" LEAKS: {self.leak}" if self.leak else "")


_PUBLISHED = read_json(pathlib.Path(__file__).with_name("published.json"))


@dataclasses.dataclass(frozen=True)
class PartReport:
    """The result of `DataSet.check` for one part.

    Args:
        part: str.
        found: list of paths of files that exist.
        missing: list of str, files that do not.
        error: str, the error of reading the annotations, or `""`.
        records, samples: ints, numbers found.
        known: list of two ints or Nones, the numbers of records and samples
            in the complete data set.
        bad: list of `(picture, reason)`, pictures that cannot be opened.
    """

    part: str
    found: list
    missing: list
    error: str = ""
    records: int = 0
    samples: int = 0
    known: list = (None, None)
    bad: list = ()

    @property
    def ok(self):
        return not (self.missing or self.error or self.bad)

    def __str__(self):
        lines = [f"{self.part}: {'good' if self.ok else 'NOT GOOD'}"]
        lines += [f"  found    {path}" for path in self.found]
        lines += [f"  MISSING  {path}" for path in self.missing]
        if self.error:
            lines.append(f"  ERROR    {self.error}")
        if self.records:
            lines.append(
                f"  counted  {self.records:,} records, {self.samples:,} "
                f"samples: {self._compared()}"
            )
        for picture, reason in self.bad[:1]:
            lines.append(f"  BAD      {picture}: {reason}")
            lines.append(f"           {len(self.bad)} bad pictures in all")
        return "\n".join(lines)

    def _compared(self):
        """Compare the numbers with the known ones, in words."""
        if not any(self.known):
            return "no expected count"
        found = zip((self.records, self.samples), self.known, strict=True)
        if all(known in (None, count) for count, known in found):
            return "as known"
        known = ("-" if n is None else f"{n:,}" for n in self.known)
        return f"DIFFERS from the known {' and '.join(known)}"


class DataSet(abc.ABC):
    """Abstract: reads a data set from the files that its authors publish.

    Args:
        root: path of the folder of the files.
        outside: bool. If True, files outside `root` are read too, by absolute
            paths, `..` or links. Set it only if you trust the data set, which
            can then name any file. On the command line, 0 or 1.

    Attributes:
        task: str, one of `records.format.TASKS`.
        labels: list of str, the classes in the order of their ids.
        protocols: dict from protocols to dicts from split names to `Split`.
            All data sets have `"official"`, the splits of BridgeTower's
            authors, and `"honest"`, which keeps training, validation and
            test sets apart.
        sizes: dict from parts to the usual numbers of records and samples.
    """

    task = None
    labels = ()
    protocols = {}
    sizes = {}

    def __init_subclass__(cls, published=None):
        """Set `protocols` and `sizes` from `published.json`, by a name there.

        If it has no official protocol, the honest one is official too.
        """
        if published is None:
            return
        found = _PUBLISHED[published]
        protocols = {
            protocol: {split: Split(**of) for split, of in splits.items()}
            for protocol, splits in found["protocols"].items()
        }
        protocols.setdefault("official", protocols["honest"])
        cls.protocols, cls.sizes = protocols, found["sizes"]

    def __init__(self, root, outside=False):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise ValueError(
                f"`root` must be a folder. Received: {str(root)!r}"
            )
        self.outside = outside in (True, "1")

    @functools.cached_property
    def ids(self):
        """Return the id of each class by its name."""
        return {label: i for i, label in enumerate(self.labels)}

    @abc.abstractmethod
    def files(self, part):
        """Return the files and folders of a part.

        Returns:
            tuple with one entry per file: a tuple of the possible paths below
            `root`.
        """

    @abc.abstractmethod
    def drafts(self, part):
        """Yield the `Draft`s of a part."""

    def read(self, part):
        """Return the list of the `Draft`s of a part.

        Raises:
            ValueError: files are missing or have unexpected content.
        """
        try:
            # Errors in the files of classes too.
            self.labels  # noqa: B018
            return list(self.drafts(part))
        except _OF_OTHER_CONTENT as error:
            raise ValueError(
                f"The files of {part} in {self.root} must be as published. "
                f"Received: {type(error).__name__}: {error!s:.300}"
            ) from error

    def split(self, name, protocol="honest"):
        """Read the records of a split, without their pictures.

        Args:
            name: str.
            protocol: str, a key of `protocols`.

        Returns:
            list of `Draft`.

        Raises:
            ValueError: the split does not exist, or files are missing or
                have unexpected content.
        """
        split = self.definitions(protocol, [name])[name]
        keep = _KEEP[split.keep]
        return [
            dataclasses.replace(draft, samples=keep(draft.samples))
            for part in split.parts
            for draft in self.read(part)
        ]

    def definitions(self, protocol="honest", splits=None):
        """Look up several splits, by default all of the protocol, by name."""
        check_choice("protocol", protocol, sorted(self.protocols))
        known = self.protocols[protocol]
        for name in splits or ():
            check_choice("name", name, list(known))
        return {name: known[name] for name in splits or known}

    def check(self, protocol="honest", splits=None, progress=iter):
        """Check the files that a build would read, except pixels.

        Args:
            protocol: str, a key of `protocols`.
            splits: names of splits; by default all of the protocol.
            progress: function from the list of records to an iterator over
                it, to show progress.

        Returns:
            list of `PartReport`.
        """
        parts = [
            part
            for split in self.definitions(protocol, splits).values()
            for part in split.parts
        ]
        return [self._check(part, progress) for part in dict.fromkeys(parts)]

    def path(self, *names):
        """Find a file at one of several paths below `root`.

        Raises:
            ValueError: it is at none of them, or outside the folder.
        """
        found = self._find(names)
        if found is not None:
            self.check_inside(found.absolute())
            return found
        raise ValueError(
            f"{self.root} must hold {' or '.join(names)}. Received: no such "
            "file. `keras-bridgetower data check` lists the expected files."
        )

    def paths(self, part):
        """Return the paths of the `files` of a part."""
        return [self.path(*names) for names in self.files(part)]

    def picture_in(self, folder, name):
        """Return the `FilePicture` of a file in a folder.

        Raises:
            ValueError: as `check_inside`.
        """
        path = pathlib.Path(folder) / name
        self.check_inside(path.absolute())
        return FilePicture(str(path))

    def check_inside(self, path, what="Each file of the data set"):
        """Raise if a path leads out of the data set's folder.

        Args:
            path: absolute path, or path relative to `root`.
            what: str, the subject of the error message.

        Raises:
            ValueError: the path or a link in it leads out, and `outside` is
                False.
        """
        if not self.outside and all(
            folder.leads_out(path) for folder in self._folders
        ):
            raise ValueError(
                f"{what} must be a path below its folder, and no link that "
                f"leaves it, or `outside` be True. Received: {str(path)!r:.200}"
            )

    @functools.cached_property
    def _folders(self):
        """Return the allowed folders, as a list of `Below`."""
        return [Below(self.root)]

    def _find(self, names):
        """Return the first of several paths that exists, or None."""
        paths = (self.root / name for name in names)
        return next((path for path in paths if path.exists()), None)

    def _check(self, part, progress):
        paths = {" or ".join(n): self._find(n) for n in self.files(part)}
        missing = [names for names, path in paths.items() if path is None]
        found = [path for path in paths.values() if path]
        if missing:
            return PartReport(part, found, missing)
        try:
            drafts = self.read(part)
            check_records(part, drafts, self.labels)
        except ValueError as error:
            return PartReport(part, found, missing, str(error))
        bad = [
            (picture, reason)
            for draft in progress(drafts)
            for picture in draft.pictures
            if (reason := picture.problem())
        ]
        return PartReport(
            part,
            found,
            missing,
            records=len(drafts),
            samples=sum(len(draft.samples) for draft in drafts),
            known=self.sizes.get(part, (None, None)),
            bad=bad,
        )
