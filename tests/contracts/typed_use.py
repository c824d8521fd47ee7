"""Calls as a type checker reads them, which run nothing.

    mypy

Keras has no types, so that most values are `Any`: what is checked is that the
stubs name what exists, and that calls have the arguments they may have. Every
other public name is read in `tests/package/test_package.py`.
"""

import numpy as np

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_vqa"


def models_and_tasks() -> None:
    picture = np.zeros((20, 20, 3), "uint8")
    backbone = kbt.BridgeTowerBackbone.from_preset(PRESET)
    bridge: type = kbt.BridgeLayer
    kbt.BridgeTowerBackbone(
        backbone.image_encoder, backbone.text_encoder, num_layers=2, taps=None
    )
    kbt.Tower(backbone.text_encoder, taps=[-2, -1], norms="shared")
    kbt.register_encoder(type(backbone.text_encoder), "text")
    vqa = kbt.BridgeTowerVQA(backbone, answers=["yes"], head_hidden_scale=2)
    vqa.answer([picture], ["what color is it?"], top_k=3)
    retrieval = kbt.BridgeTowerRetrieval.from_preset(PRESET)
    retrieval.rank([picture], ["a red circle"], shortlist=1)
    contrastive = kbt.BridgeTowerContrastive(backbone, projection_dim=512)
    contrastive.embed(images=[picture])
    verb = kbt.Verb("a", "b", ("c",), "d", {"image": "images"}, {"e": float})
    reranker = kbt.BridgeTowerReranker.from_preset(PRESET, batch_size=8)
    reranker.rank("a red circle", ["photo.png"], top_k=3)
    tokenizer = kbt.BridgeTowerTokenizer.from_preset(PRESET)
    images = kbt.BridgeTowerImageConverter(image_size=288, mode="squash")
    kbt.BridgeTowerVQAPreprocessor(tokenizer, images, answers=["yes"])
    family: str = kbt.default_family()
    for path, question in kbt.first_examples(family + "vqa")["ask"]:
        print(path, question, verb.columns, bridge)


def data_and_training() -> None:
    cache = kbt.data.ShardCache("cache", most_bytes=10**9, seconds=60)
    records: kbt.data.RecordReader = kbt.data.open_records(
        "s3://bucket/records", "test", cache=cache
    )
    damaged: type[kbt.data.DamagedRecord] = kbt.data.DamagedRecord
    failed: type[kbt.data.StoreError] = kbt.data.StoreError
    sample = kbt.data.Sample("1", "a red circle", labels=(0,))
    record = kbt.data.Record("1", (b"",), (sample,), "mine")
    kbt.data.write_shards(
        "records", "test", [record], task="retrieval", definition="mine"
    )
    order = kbt.data.Shuffled(window=16, lanes=2)
    stream = kbt.Stream([records], 8, kbt.data.transform("blip"), order=order)
    run = kbt.Checkpoint("run", stream, every=100)
    model = kbt.BridgeTowerVQA.from_preset(PRESET)
    states: kbt.KeptStates = model.keep_states("states", images=["photo.png"])
    model.predict({"images": states[[0, 0]], "text": ["a dot", "a line"]})
    kbt.training.Checkpoint.fit(run, model, steps=100)
    recipe: kbt.training.recipes.Recipe = kbt.training.recipes.get("vqav2_base")
    recipe.replace(epochs=1).optimizer(total_steps=10)
    kbt.training.plan(recipe, "h100", devices=8, rows=640_000, price=2.0)
    print(damaged, failed)


def metrics_and_analysis() -> None:
    pairs: kbt.metrics.NLVR2Report = kbt.metrics.evaluate_nlvr2(
        ["dev-1-0-0"], [1], [1]
    )
    recall: kbt.metrics.RetrievalReport = kbt.metrics.retrieval_recall(
        np.eye(2), [0, 1], ks=(1, 5)
    )
    scores: kbt.metrics.VQAReport = kbt.metrics.evaluate_vqa(
        "annotations.json", "results.json"
    )
    print(pairs.accuracy, recall.recalls, scores.overall)
    model = kbt.BridgeTowerVQA.from_preset(PRESET)
    shown: kbt.analysis.AttentionMap = kbt.analysis.attention_map(
        model, np.zeros((20, 20, 3), "uint8"), "what color is it?", layer=-1
    )
    heads: kbt.analysis.HeadDiversity = kbt.analysis.head_diversity(model, [])
    print(shown.words, heads.mean)


def search() -> None:
    def tell(progress: kbt.search.IndexProgress) -> None:
        print(progress.done, progress.total)

    store = kbt.search.LanceStore("photos.index")
    models = kbt.search.SearchModels.from_preset(PRESET, image_mode="crop")
    photos = kbt.search.PictureSearch(store, models)
    report: kbt.search.IndexReport = photos.index("photos", progress=tell)
    bad: kbt.search.UnreadablePicture = report.unreadable[0]
    hits: list[kbt.search.Hit] = photos.query("a red circle", top_k=3)
    print(bad.path, hits[0].match, kbt.search.info("photos.index"))
