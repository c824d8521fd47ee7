"""What all readers share: parts, splits, and a check before any work."""

import abc
import dataclasses
import pathlib

from keras_bridgetower.data.datasets import tables as files
from keras_bridgetower.data.records.checks import check_records


def every_sample(samples):
    """All samples of a record, as they are."""
    return samples


def distinct_texts(samples):
    """The first sample of each text, in their order."""
    first = {}
    for sample in samples:
        first.setdefault(sample.text, sample)
    return tuple(first.values())


def first_five(samples):
    """The first five, as retrieval on COCO and Flickr30K is measured."""
    return samples[:5]


@dataclasses.dataclass(frozen=True)
class Split:
    """What a split is made of.

    Args:
        parts: names of parts of the data set.
        words: str, the split in words.
        leak: str, in words what else sees the same samples, or `""`.
        keep: function from the samples of a record to those kept.
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
    """What `DataSet.check` found of one part.

    Args:
        part: str.
        found: list of paths.
        missing: list of str, files that should be there.
        error: str, why the annotations cannot be read, or a split of them
            cannot be written, or `""`.
        records, samples: ints.
        known: pair of ints or None, records and samples of the whole.
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
        """Whether the counts are those of the whole data set."""
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
    """A data set in the files of its authors.

    Args:
        root: path of the folder that holds them.

    Attributes:
        task: str, one of `record_format.TASKS`.
        labels: list of str, the classes in the order of their ids.
        protocols: dict from a name to the splits, a dict from their names to
            `Split`. `"honest"` and `"official"`, which copies the choices of
            BridgeTower's authors, are always there.
        sizes: dict from parts to the known numbers of records and samples.

    Raises:
        ValueError: no such folder.
    """

    task = None
    labels = ()
    protocols = {}
    sizes = {}

    def __init__(self, root):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise ValueError(
                "The folder of the data set must exist. Received: "
                f"root={str(root)!r}"
            )

    @abc.abstractmethod
    def files(self, part):
        """Files and folders that a part needs.

        Each is a tuple of the places where it may lie below the root.
        """

    @abc.abstractmethod
    def drafts(self, part):
        """Iterate over the `Draft`s of a part."""

    def split(self, name, protocol="honest"):
        """The records of a split, their pictures not yet read.

        Args:
            name: str.
            protocol: str, a key of `protocols`.

        Returns:
            list of `Draft`.

        Raises:
            ValueError: no such split, files that are missing, or of another
                schema.
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
        """The `Split` of a name."""
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
        """Look at everything that a build would read, pixels excepted.

        Args:
            protocol: str, a key of `protocols`.
            splits: names, by default all of the protocol.
            progress: function that wraps the list of records in an iterator.

        Returns:
            list of `PartReport`.
        """
        names = self.protocols[protocol] if splits is None else splits
        parts = {n: self.definition(n, protocol).parts for n in names}
        every = dict.fromkeys(part for of in parts.values() for part in of)
        reports = {part: self._check(part, progress) for part in every}
        for name, of in parts.items():
            if all(reports[p].records and not reports[p].error for p in of):
                error = self._refused(name, protocol)
                reports[of[-1]] = dataclasses.replace(
                    reports[of[-1]], error=error
                )
        return list(reports.values())

    def path(self, *places):
        """The first of some places below the root at which a file lies.

        Raises:
            ValueError: at none of them.
        """
        for place in places:
            if (self.root / place).exists():
                return self.root / place
        raise ValueError(
            f"{self.root} must hold {' or '.join(places)}. Received: no such "
            f"file. `python -m keras_bridgetower.data.build check` lists what "
            "is expected."
        )

    def _refused(self, name, protocol):
        """Why a build would not write a split, or `""`."""
        try:
            drafts = self.split(name, protocol)
            check_records(name, drafts, self.task, self.labels)
        except ValueError as error:
            return str(error)
        return ""

    def _check(self, part, progress):
        found, missing = [], []
        for places in self.files(part):
            try:
                found.append(self.path(*places))
            except ValueError:
                missing.append(" or ".join(places))
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


def picture_in(folder, name):
    """A picture file as a `FilePicture`."""
    return files.FilePicture(str(pathlib.Path(folder) / name))
