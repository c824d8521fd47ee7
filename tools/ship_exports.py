"""Write the exported forms that the packages of presets ship.

    KERAS_BACKEND=torch python tools/ship_exports.py
    KERAS_BACKEND=torch python tools/ship_exports.py bridgetower_tiny_easy_vqa

Commands run them in ONNX Runtime without Keras. The models have no weights:
they point into the weights of the preset, where those are stored in float16 or
in floats of 8 bits. Run this for a preset whose files changed; without names,
it writes those that do not match their presets. A preset takes two minutes.
"""

import argparse
import itertools
import shutil

import h5py
import numpy as np
import onnx
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper

from keras_bridgetower import files
from keras_bridgetower.apps import exported
from keras_bridgetower.presets import verbs
from keras_bridgetower.presets.table import PRESETS

# The verb of a task's presets.
VERBS = {
    "BridgeTowerVQA": verbs.ANSWER.name,
    "BridgeTowerRetrieval": verbs.SCORE.name,
    "BridgeTowerContrastive": verbs.EMBED_IMAGES.name,
}
# How the files end that `ExportedModel` reads.
READ = (".onnx", "preprocessor.json", "export.json", "engine.json")
# Smaller weights stay in the graph.
FEWEST = 16


def shipped():
    """Return a `ShippedExport` for each preset that has one."""
    return {
        name: exported.ShippedExport(name, VERBS[preset.tasks[0]])
        for name, preset in PRESETS.items()
        if preset.root and preset.tasks[0] in VERBS
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("presets", nargs="*", metavar="preset")
    chosen, exports = parser.parse_args().presets, shipped()
    old = [name for name, export in exports.items() if not export.is_there()]
    for name in chosen or old:
        write(exports[name])


def write(export):
    """Write the exported form of a preset anew."""
    weights = stored_weights(export.root)

    def change(model):
        for graph in model.glob("*.onnx"):
            point_to_weights(graph, weights)
        for path in [*model.rglob("*")]:
            if path.is_file() and not path.name.endswith(READ):
                path.unlink()

    shutil.rmtree(export.folder, ignore_errors=True)
    files.write_folder(export.folder, lambda new: export.save(new, change))
    size = sum(p.stat().st_size for p in export.folder.rglob("*.*"))
    print(f"{export.folder}: {size / 1e6:.2f} MB")


def stored_weights(folder):
    """Return `(file, offset, bytes, table)` by the values of each weight.

    Values are the bytes of float32. The table has the values of the 256 floats
    of 8 bits, or is None for float16.
    """
    found = {}
    for path in sorted(folder.glob("*.weights.h5")):

        def visit(_, data, name=path.name):
            kind = getattr(data, "dtype", None)
            if kind != np.float16 or data.size < FEWEST:
                return
            size = data.id.get_type().get_size()
            place = name, data.id.get_offset(), size * data.size
            table = tuple(_table(data)) if size == 1 else None
            found[data.astype("float32")[()].tobytes()] = *place, table

        with h5py.File(path) as file:
            file.visititems(visit)
    return found


def _table(data):
    """Return the values of the 256 floats of 8 bits of a data set."""
    kind = data.id.get_type()
    values = np.empty(256, "float32")
    with h5py.File("table", "w", driver="core", backing_store=False) as file:
        space = h5py.h5s.create_simple((256,))
        table = h5py.h5d.create(file.id, b"table", kind, space)
        table.write(space, space, np.arange(256, dtype="uint8"), mtype=kind)
        table.read(space, space, values)
    # The last exponent is infinity, which weights never are.
    return np.nan_to_num(values, nan=0, posinf=0, neginf=0).tolist()


def point_to_weights(path, weights):
    """Replace the weights in an ONNX file by places in other files."""
    model = onnx.load(path)
    graph, nodes, tables = model.graph, [], {}

    def add(kind, *inputs, **attributes):
        name = f"decoded_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    for number, old in enumerate([*graph.initializer]):
        values = numpy_helper.to_array(old)
        if values.dtype != np.float32 or values.size < FEWEST:
            continue
        order, place = _place(values, weights)
        if place is None:
            continue
        *place, table = place
        graph.initializer.remove(old)
        name, shape = f"stored_{number}", [values.shape[i] for i in order]
        graph.initializer.append(_external(name, shape, *place, table))
        if table:
            known = tables.setdefault(table, f"float8_{len(tables)}")
            add("Gather", known, add("Cast", name, to=TensorProto.INT32))
        else:
            add("Cast", name, to=TensorProto.FLOAT)
        if order != tuple(range(len(order))):
            back = np.argsort(order).tolist()
            add("Transpose", nodes[-1].output[0], perm=back)
        nodes[-1].output[0] = old.name
    for table, name in tables.items():
        table = np.float32(table)
        graph.initializer.append(numpy_helper.from_array(table, name))
    nodes += graph.node
    for node in nodes:
        for field in ("name", "doc_string", "metadata_props"):
            node.ClearField(field)
    graph.ClearField("node")
    graph.ClearField("value_info")
    graph.node.extend(nodes)
    onnx.save(model, path)


def _place(values, weights):
    """Return the order of axes in which values are stored, and the place."""
    for order in itertools.permutations(range(values.ndim)):
        place = weights.get(values.transpose(order).tobytes())
        if place is not None:
            return order, place
    return None, None


def _external(name, shape, file, offset, length, table):
    kind = TensorProto.UINT8 if table else TensorProto.FLOAT16
    place = {"location": file, "offset": offset, "length": length}
    tensor = TensorProto(name=name, data_type=kind, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


if __name__ == "__main__":
    main()
