"""Check the runs of rehearsals, and write the results as a table.

python tools/rehearsal_table.py REPORT.json ...    # for docs/rehearsal.md
"""

import collections
import itertools
import json
import pathlib
import sys
import textwrap

import tables

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def rows(runs, facts, soon, lost):
    whole, killed, mended = (runs[k] for k in ("whole", "one killed", "mended"))
    last = len(whole) - 1
    checks = {
        "runs to its end": ends(whole),
        "learning rate of each update": rates(whole, facts),
        "updates": updates(whole, facts),
        "rows of an epoch": read(whole, facts),
        "all hosts killed, resumed": same_training(whole, killed),
        f"host {last} killed": stops(killed[:last], lost),
        f"no checkpoint on host {last}": agrees(runs["lost"], soon),
        "put right, resumed": same_training(whole, mended),
        "weights at the end": alike(weights(whole), weights(mended)),
        "scores at the end": alike(scores(whole), scores(mended)),
    }
    return [
        {"check": check, "found": found, "right": right}
        for check, (found, right) in checks.items()
    ]


def ends(hosts):
    codes = [host["code"] for host in hosts]
    batches = hosts[0]["batches"]
    if any(codes) or not batches:
        errors = "; ".join(short(host["error"]) for host in hosts)
        return f"exit codes {codes}: {errors}", False
    first, last = (batches[i]["loss"] for i in (0, -1))
    return f"loss {first:.3f} to {last:.3f}", True


def rates(hosts, facts):
    peak, warmup, total = (facts[k] for k in ("peak", "warmup", "updates"))
    off = [0.0]
    for batch in itertools.chain(*(host["batches"] for host in hosts)):
        update = batch["batch"] // facts["accumulation"]
        share = (total - update) / (total - warmup)
        if update < warmup:
            share = update / warmup
        off.append(abs(batch["rate"] / peak - share))
    # They are float32.
    return f"off by at most {max(off):.0e} of the peak", max(off) < 1e-6


def updates(hosts, facts):
    batches = hosts[0]["batches"]
    pairs = itertools.pairwise(batches)
    moved = {b["batch"] for a, b in pairs if a["weights"] != b["weights"]}
    steps, count = facts["accumulation"], facts["updates"]
    # The first update has the rate 0, of the warm-up.
    first = 1 if facts["warmup"] else 0
    due = {u * steps + steps - 1 for u in range(first, count)} - {0}
    found = f"weights moved after {len(moved & due)} of {len(due)} updates"
    others = len(moved - due)
    if others:
        found += f", and after {others} other batches"
    return found, moved == due and len(batches) == count * steps


def read(hosts, facts):
    epochs = facts["updates"] * facts["accumulation"] // facts["length"]
    due = facts["length"] * facts["rows_of_batch"]
    counts = collections.Counter(
        (epoch, row) for host in hosts for epoch, row in host["read"]
    )
    unique = [sum(e == epoch for e, _ in counts) for epoch in range(epochs)]
    often = max((n for (e, _), n in counts.items() if e < epochs), default=0)
    found = f"{min(unique, default=0)} unique of {due} in each of {epochs}"
    found += ", read once" if often == 1 else f", read up to {often} times"
    return found, set(unique) == {due} and often == 1


def same_training(whole, part):
    off, batches = [], []
    for one, other in zip(whole, part, strict=True):
        losses = {batch["batch"]: batch["loss"] for batch in one["batches"]}
        batches = [batch["batch"] for batch in other["batches"]]
        if not batches:
            return f"did not go on: {short(other['error'])}", False
        # Of a batch that the whole run lacks, it is infinite.
        off += [
            abs(batch["loss"] - losses.get(batch["batch"], float("inf")))
            for batch in other["batches"]
        ]
    found = f"from batch {batches[0]} to {batches[-1]}: "
    # Begun anew, it would be the same as well.
    right = max(off) == 0 and batches[0] > 0
    return f"{found}difference {max(off):.1g}", right


def stops(others, soon):
    """Check that the others end, all with an error, when one was killed."""
    if any(host["waited"] is None for host in others):
        return f"the others did not end within {soon} s", False
    waited = max(host["waited"] for host in others)
    if waited > soon:
        return f"the others ended only after {waited:.0f} s", False
    error = others[0]["error"] or f"exit code {others[0]['code']}"
    found = f"the others ended after {waited:.0f} s: {short(error)}"
    return found, all(host["code"] for host in others)


def agrees(hosts, soon):
    """Check that all end with the same `CheckpointError`."""
    errors = {host["error"] for host in hosts}
    if any(host["waited"] is None for host in hosts):
        return f"not all ended within {soon} s: {sorted(errors)}", False
    waited = max(host["waited"] for host in hosts)
    found = f"all ended, within {waited:.0f} s of each other: "
    found += "; ".join(map(short, sorted(errors)))
    ours = all("CheckpointError" in error for error in errors)
    return found, ours and len(errors) == 1


def short(error):
    return textwrap.shorten(error or "no error", 120, placeholder=" …")


def alike(one, other):
    equal = bool(one) and one == other
    return one if equal else f"{one}, and {other}", equal


def weights(hosts):
    last = [batch for host in hosts for batch in host["batches"][-1:]]
    found = [f"sum {b['sum']:.9g} ({b['weights']})" for b in last]
    return ", ".join(dict.fromkeys(found))


def scores(hosts):
    return "; ".join(dict.fromkeys("; ".join(h["scores"]) for h in hosts))


def table(reports):
    head = (
        "{recipe}: {hosts} hosts, {updates} updates of {accumulation} "
        "batch(es) of {rows_of_batch} rows, {warmup} of them warm-up; an "
        "epoch is {length} batches."
    ).format(**reports[0])
    rows = [["", *(NAMES[report["backend"]] for report in reports)]]
    for cells in zip(*(report["rows"] for report in reports), strict=True):
        results = [
            ("" if cell["right"] else "✗ ") + cell["found"].replace("|", "/")
            for cell in cells
        ]
        rows.append([cells[0]["check"], *results])
    rows.append(["seconds", *(f"{r['seconds']:.0f}" for r in reports)])
    return f"{head}\n\n{tables.markdown(rows)}"


def main(paths):
    texts = [pathlib.Path(path).read_text() for path in paths]
    found = [report for text in texts for report in json.loads(text)]
    for name in dict.fromkeys(report["recipe"] for report in found):
        print(table([r for r in found if r["recipe"] == name]))


if __name__ == "__main__":
    main(sys.argv[1:])
