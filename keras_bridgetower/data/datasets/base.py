"""`DataSet`: base class of all readers, with splits and a check of files."""

import abc
import dataclasses
import functools
import pathlib

from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.records.checks import check_records
from keras_bridgetower.files import Below

# The values of `outside`, also as the command line gives them.
_OUTSIDE = {False: False, True: True, "0": False, "1": True}


def every_sample(samples):
    """Keep all samples of a record."""
    return samples


def distinct_texts(samples):
    """Keep the first sample with each text."""
    first = {}
    for sample in samples:
        first.setdefault(sample.text, sample)
    return tuple(first.values())


def first_five(samples):
    """Keep the first five, as scores of COCO and Flickr30K retrieval do."""
    return samples[:5]


@dataclasses.dataclass(frozen=True)
class Split:
    """The parts of the original data that form a split.

    Args:
        parts: tuple of str, names of parts of the data set.
        words: str, a description of the split.
        leak: str, tells which other split has the same samples; `""` if none.
        keep: function that takes the samples of a record and returns those
            to keep.
    """

    parts: tuple[str, ...]
    words: str
    leak: str = ""
    keep: object = every_sample

    @property
    def definition(self):
        return self.words + (f" LEAKS: {self.leak}" if self.leak else "")


@dataclasses.dataclass(frozen=True)
class PartReport:
    """What `DataSet.check` found out about one part.

    Args:
        part: str.
        found: list of paths of files that exist.
        missing: list of str, files that do not.
        error: str, why the annotations cannot be read or a split cannot be
            written; `""` if they can.
        records, samples: ints, numbers found.
        known: pair of ints or Nones, the numbers of records and samples in
            the complete data set.
        bad: list of `(picture, reason)`, pictures that cannot be opened.
    """

    part: str
    found: list
    missing: list
    error: str = ""
    records: int = 0
    samples: int = 0
    known: tuple = (None, None)
    bad: list = ()

    @property
    def ok(self):
        wrong = self.missing or self.error or self.bad
        return self.records > 0 and not wrong

    @property
    def complete(self):
        """Whether the numbers are those of the complete data set."""
        counts = zip((self.records, self.samples), self.known, strict=True)
        return all(known in (None, found) for found, known in counts)

    def __str__(self):
        lines = [f"{self.part}: {'good' if self.ok else 'NOT GOOD'}"]
        lines += [f"  found    {path}" for path in self.found]
        lines += [f"  MISSING  {path}" for path in self.missing]
        lines += [f"  ERROR    {self.error}"] * bool(self.error)
        if not (self.records or self.missing or self.error):
            lines.append(
                "  EMPTY    no record: no row belongs here, or none has its "
                "picture"
            )
        if self.records:
            told = f"{self.records:,} records, {self.samples:,} samples"
            known = " and ".join(
                "-" if n is None else f"{n:,}" for n in self.known
            )
            if self.known == (None, None):
                known = "nothing to compare with"
            elif self.complete:
                known = "as known"
            else:
                known = f"DIFFERS from the known {known}"
            lines.append(f"  counted  {told}: {known}")
        for picture, reason in self.bad[:1]:
            lines.append(f"  BAD      {picture}: {reason}")
            lines.append(f"           {len(self.bad)} bad pictures in all")
        return "\n".join(lines)


class DataSet(abc.ABC):
    """Abstract: reads a data set from the files that its authors publish.

    Args:
        root: path of the folder with the files.
        outside: bool, whether files outside of `root` may be read, by absolute
            paths, `..` or links. Set it only if you trust the data set, which
            can then name any file.

    Attributes:
        task: str, one of `records.format.TASKS`.
        labels: list of str, the classes in the order of their ids.
        protocols: dict from names of protocols to dicts from names of splits
            to `Split`. All data sets have `"official"`, the splits of
            BridgeTower's authors, and `"honest"`, which keeps training,
            validation and test sets apart.
        sizes: dict from parts to the known numbers of records and samples.

    Raises:
        ValueError: the folder does not exist.
    """

    task = None
    labels = ()
    protocols = {}
    sizes = {}

    def __init__(self, root, outside=False):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise ValueError(
                "The folder of the data set must exist. Received: "
                f"root={str(root)!r}"
            )
        if outside not in _OUTSIDE:
            raise ValueError(
                "`outside` must be True or False (`--set outside=1` on the "
                f"command line). Received: outside={outside!r:.100}"
            )
        self.outside = _OUTSIDE[outside]

    @abc.abstractmethod
    def files(self, part):
        """The files and folders that a part needs.

        Returns:
            tuple with one entry for each file: a tuple of the paths below
            `root` at which it may be.
        """

    @abc.abstractmethod
    def drafts(self, part):
        """Iterate over the `Draft`s of a part."""

    def split(self, name, protocol="honest"):
        """Read the records of a split, without their pictures.

        Args:
            name: str.
            protocol: str, a key of `protocols`.

        Returns:
            list of `Draft`.

        Raises:
            ValueError: there is no such split, or files are missing or have
                unexpected content.
        """
        split = self.definition(name, protocol)
        drafts = []
        for part in split.parts:
            for draft in self.drafts(part):
                kept = split.keep(draft.samples)
                if kept is not draft.samples:
                    draft = dataclasses.replace(draft, samples=kept)
                drafts.append(draft)
        return drafts

    def definition(self, name, protocol="honest"):
        """Look up a `Split` by the names of split and protocol."""
        if protocol not in self.protocols:
            raise ValueError(
                f"`protocol` must be one of {sorted(self.protocols)}. "
                f"Received: protocol={protocol!r}"
            )
        splits = self.protocols[protocol]
        if name not in splits:
            raise ValueError(
                f"`name` must be one of {list(splits)}, the splits of "
                f"protocol {protocol!r}. Received: name={name!r}"
            )
        return splits[name]

    def check(self, protocol="honest", splits=None, progress=iter):
        """Check all that a build would read, except pixels.

        Args:
            protocol: str, a key of `protocols`.
            splits: names of splits; by default all of the protocol.
            progress: function that takes the list of records and returns an
                iterator over it, to show progress.

        Returns:
            list of `PartReport`.
        """
        names = self.protocols[protocol] if splits is None else splits
        parts = {n: self.definition(n, protocol).parts for n in names}
        every = dict.fromkeys(part for of in parts.values() for part in of)
        reports = {part: self._check(part, progress) for part in every}
        for name, of in parts.items():
            if all(reports[p].records and not reports[p].error for p in of):
                error = self._error_of_split(name, protocol)
                reports[of[-1]] = dataclasses.replace(
                    reports[of[-1]], error=error
                )
        return list(reports.values())

    def path(self, *places):
        """Find a file that may be at one of several paths below `root`.

        Raises:
            ValueError: it is at none of them, or at one that leads out of
                the folder.
        """
        found = self._find(places)
        if found is not None:
            self.check_inside(found.absolute())
            return found
        raise ValueError(
            f"{self.root} must hold {' or '.join(places)}. Received: no such "
            f"file. `keras-bridgetower data check` lists what "
            "is expected."
        )

    def picture_in(self, folder, name):
        """Return the `FilePicture` of a file in a folder.

        Raises:
            ValueError: as `check_inside`.
        """
        path = pathlib.Path(folder) / name
        self.check_inside(path.absolute())
        return FilePicture(str(path))

    def check_inside(self, path, what="Each file of the data set", where=""):
        """Refuse a path that leads out of the data set's folder.

        Args:
            path: path in full, or relative to `root`.
            what: str, what errors call such a path.
            where: str, where errors say that it was found.

        Raises:
            ValueError: the path itself or a link in it leads out, and
                `outside` is not set.
        """
        if not self.outside and all(
            folder.leads_out(path) for folder in self._folders
        ):
            raise ValueError(
                f"{what} must be a path below its folder, and no link that "
                "leaves it. Copy the file there; or, if you trust the data "
                "set, read files anywhere by `outside=True` (`--set "
                "outside=1` on the command line). Received: "
                f"{str(path)!r:.200}{where}, not below {str(self.root)!r}"
            )

    @functools.cached_property
    def _folders(self):
        """The folders that files may be in, as list of `Below`."""
        return [Below(self.root)]

    def _find(self, places):
        """The first of several places that exists, or None."""
        paths = (self.root / place for place in places)
        return next((path for path in paths if path.exists()), None)

    def _error_of_split(self, name, protocol):
        """The error that writing a split would raise, or `""`."""
        try:
            drafts = self.split(name, protocol)
            check_records(name, drafts, self.task, self.labels)
        except ValueError as error:
            return str(error)
        return ""

    def _check(self, part, progress):
        found, missing = [], []
        for places in self.files(part):
            path = self._find(places)
            if path is None:
                missing.append(" or ".join(places))
            else:
                found.append(path)
        if missing:
            return PartReport(part, found, missing)
        try:
            drafts = list(self.drafts(part))
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
            "",
            len(drafts),
            sum(len(draft.samples) for draft in drafts),
            self.sizes.get(part, (None, None)),
            bad,
        )
