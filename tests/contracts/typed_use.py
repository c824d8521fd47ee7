"""Every public name, used as a type checker reads it. It is never run.

    mypy

Keras has no types, so that most values are `Any`: what is checked is that the
stubs name what exists, and that calls have the arguments they may have.
"""

import numpy as np

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_vqa"


def models() -> None:
    backbone = kbt.BridgeTowerBackbone.from_preset(PRESET)
    kbt.BridgeTowerBackbone(
        backbone.image_encoder, backbone.text_encoder, num_layers=2, taps=None
    )
    kbt.CrossModalEncoder(64, num_heads=2, num_layers=2, bridge="add")
    kbt.Tower(backbone.text_encoder, taps=[-2, -1], norms="shared")
    kbt.Tower(backbone.image_encoder, taps=[-1], positions=None)
    kbt.hidden_states(backbone.text_encoder)
    print(kbt.ExportedModel("folder").reads)
    kbt.register_encoder(type(backbone.text_encoder), "text")
    bridge: type = kbt.BridgeLayer
    manager: type = kbt.ManagerLayer
    head = kbt.register_head("my_head")
    print(bridge, manager, head)


def tasks() -> None:
    verb = kbt.Verb("a", "b", ("c",), "d", {"image": "images"}, {"e": float})
    print(verb.columns)
    backbone = kbt.BridgeTowerBackbone.from_preset(PRESET)
    kbt.BridgeTowerVQA(backbone, answers=["yes", "no"], head_hidden_scale=2)
    kbt.BridgeTowerRetrieval(backbone)
    kbt.BridgeTowerListRanking(backbone, list_size=4)
    kbt.BridgeTowerContrastive(backbone, projection_dim=512)
    kbt.BridgeTowerEntailment(backbone)
    kbt.BridgeTowerMaskedLM(backbone)
    kbt.BridgeTowerNLVR2(backbone)
    kbt.BridgeTowerPretraining(backbone)
    kbt.BridgeTowerImageClassifier(backbone, labels=["cat", "dog"])
    kbt.BridgeTowerTextClassifier(backbone, labels=["good", "bad"])
    kbt.BridgeTowerTextRegressor(backbone)
    task = kbt.BridgeTowerTask.from_preset(PRESET)
    embedder = kbt.BridgeTowerEmbedder(task, batch_size=8)
    embedder.embed_query("a red circle")
    kbt.BridgeTowerEmbedder.from_preset(PRESET, sequence_length=200)
    reranker = kbt.BridgeTowerReranker.from_preset(PRESET, batch_size=8)
    reranker.rank("a red circle", ["photo.png"], top_k=3)
    reranker.predict([("a red circle", "photo.png")])
    kbt.export_to_sentence_transformers(reranker.task, "folder")


def verbs() -> None:
    picture = np.zeros((20, 20, 3), "uint8")
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET)
    vqa.answer([picture], ["what color is it?"], top_k=3)
    retrieval = kbt.BridgeTowerRetrieval.from_preset(PRESET)
    retrieval.score([picture], ["a red circle"])
    retrieval.rank([picture], ["a red circle"], shortlist=1)
    contrastive = kbt.BridgeTowerContrastive.from_preset(PRESET)
    contrastive.embed(images=[picture])
    mlm = kbt.BridgeTowerMaskedLM.from_preset(PRESET)
    mlm.fill_mask([picture], ["a <mask> circle"])


def first_contact() -> None:
    family: str = kbt.default_family()
    for picture, question in kbt.first_examples(family + "vqa")["ask"]:
        print(picture, question)


def preprocessors() -> None:
    tokenizer = kbt.BridgeTowerTokenizer.from_preset(PRESET)
    kbt.BridgeTowerBertTokenizer(["[PAD]"], lowercase=True)
    kbt.BridgeTowerJsonTokenizer({"model": {}}, adds_start=True)
    images = kbt.BridgeTowerImageConverter(image_size=288, mode="squash")
    kbt.BridgeTowerVQAPreprocessor(tokenizer, images, answers=["yes"])
    kbt.BridgeTowerRetrievalPreprocessor(tokenizer, images)
    kbt.BridgeTowerContrastivePreprocessor(tokenizer, images)
    kbt.BridgeTowerEntailmentPreprocessor(tokenizer, images)
    kbt.BridgeTowerMaskedLMPreprocessor(tokenizer, images)
    kbt.BridgeTowerNLVR2Preprocessor(tokenizer, images)
    kbt.BridgeTowerListRankingPreprocessor(tokenizer, images, list_size=4)
    kbt.BridgeTowerPretrainingPreprocessor(tokenizer, images)
    kbt.BridgeTowerImageClassifierPreprocessor(images, labels=["cat"])
    kbt.BridgeTowerTextClassifierPreprocessor(tokenizer, labels=["good"])
    kbt.BridgeTowerTextRegressorPreprocessor(tokenizer)
    print(kbt.BridgeTowerPreprocessor)


def data() -> None:
    reader = kbt.data.open_dataset("vqav2", "originals")
    records: kbt.data.RecordReader = kbt.data.open_records("records", "test")
    damaged: type[kbt.data.DamagedRecord] = kbt.data.DamagedRecord
    cache = kbt.data.ShardCache("cache", most_bytes=10**9, seconds=60)
    kbt.data.open_records("s3://bucket/records", "test", cache=cache)
    failed: type[kbt.data.StoreError] = kbt.data.StoreError
    sample = kbt.data.Sample("1", "a red circle", labels=(0,))
    record = kbt.data.Record("1", (b"",), (sample,), "mine")
    kbt.data.write_shards(
        "records", "test", [record], task="retrieval", definition="mine"
    )
    kbt.data.index_tars("laion", "train", "pairs", max_bad_share=0.01)
    kbt.data.index_tars("laion", "train", "pairs", part=(0, 8))
    kbt.data.index_parquet("cc3m", "train", "pairs", image="jpg", text="txt")
    transform = kbt.data.transform("blip", image_size=288)
    stream = kbt.data.Stream(
        [records], 8, transform, order=kbt.data.Shuffled(window=16, lanes=2)
    )
    kbt.Stream([records], 8, transform, order=kbt.data.Sequential())
    stream.dataset(start=(0, 0), epochs=1)
    print(reader, damaged, failed)


def training() -> None:
    schedule = kbt.training.WarmupPolynomial(peak=1e-5, total_steps=100)
    kbt.training.AdamW(schedule, weight_decay=0.01)
    stream = kbt.Stream([kbt.data.open_records("records", "test")], 8)
    run = kbt.Checkpoint("run", stream, every=100)
    model = kbt.BridgeTowerVQA.from_preset(PRESET)
    model.compile(loss=kbt.VQALoss(), metrics=[kbt.VQAScore()])
    model.compile(loss=kbt.ListwiseSoftmaxLoss())
    model.compile(loss=kbt.LambdaRankLoss())
    model.compile(loss=kbt.MarginMSELoss())
    model.compile(loss=kbt.ListDistillationLoss(temperature=2.0))
    states: kbt.KeptStates = model.keep_states("states", images=["photo.png"])
    model.predict({"images": states[[0, 0]], "text": ["a dot", "a line"]})
    try:
        kbt.training.Checkpoint.fit(run, model, steps=100)
    except kbt.training.CheckpointError:
        kbt.distribute("auto")
    recipe: kbt.training.recipes.Recipe = kbt.training.recipes.get("vqav2_base")
    recipe.replace(epochs=1).optimizer(total_steps=10)
    kbt.training.plan(recipe, "h100", devices=8, rows=640_000, price=2.0)
    kbt.training.compile_step(recipe, "v5e:4x4", "fsdp")
    print(kbt.training.recipes.RECIPES)


def metrics() -> None:
    kbt.metrics.ContrastiveAccuracy(ways="three_way")
    kbt.metrics.MaskedTokenAccuracy(ignore_id=-100)
    kbt.metrics.NDCG(k=10)
    kbt.metrics.VQAScore(name="vqa_score")
    kbt.metrics.fit_temperature(np.eye(2), [0, 1])
    kbt.metrics.expected_calibration_error([0.5], [True], bins=15)
    kbt.metrics.threshold_for(-kbt.metrics.energy(np.eye(2)), share=0.95)
    kbt.metrics.f1_score([0, 1], [1, 1])
    kbt.metrics.matthews_correlation([0, 1], [1, 1])
    kbt.metrics.spearman_correlation([0.0, 1.0], [0.5, 1.0])
    pairs: kbt.metrics.NLVR2Report = kbt.metrics.evaluate_nlvr2(
        ["dev-1-0-0"], [1], [1]
    )
    recall: kbt.metrics.RetrievalReport = kbt.metrics.retrieval_recall(
        np.eye(2), [0, 1], ks=(1, 5)
    )
    scores: kbt.metrics.VQAReport = kbt.metrics.evaluate_vqa(
        "annotations.json", "results.json"
    )
    kbt.metrics.answer_list("annotations.json", min_count=9)
    kbt.metrics.normalize_answer("Two")
    kbt.metrics.soft_scores(["yes"] * 10)
    kbt.metrics.score_answer("yes", ["yes"] * 10)
    kbt.metrics.write_vqa_results("results.json", [1], ["yes"])
    print(pairs.accuracy, recall.recalls, scores.overall)


def search() -> None:
    models = kbt.search.SearchModels.from_preset(PRESET, image_mode="crop")
    kbt.search.export_fusion(models.retrieval, "fusion", pairs=None)
    kbt.search.ExportedFusion("fusion", models.retrieval, precision="bfloat16")
    kbt.ExportedModel.program("fusion.onnx", runtime="openvino")
    kbt.search.PictureSearch("photos.index", PRESET)
    store = kbt.search.LanceStore("photos.index")
    kbt.search.QdrantFolder("photos.qdrant")
    kbt.search.QdrantServer("http://localhost:6333", api_key=None)
    kbt.search.open_store("qdrant:photos.qdrant")

    def tell(progress: kbt.search.IndexProgress) -> None:
        print(progress.done, progress.total)

    photos = kbt.search.PictureSearch(store, models)
    report: kbt.search.IndexReport = photos.index("photos", progress=tell)
    bad: kbt.search.UnreadablePicture = report.unreadable[0]
    hits: list[kbt.search.Hit] = photos.query("a red circle", top_k=3)
    print(bad.path, hits[0].match, kbt.search.info("photos.index"))
    kbt.search.remove("photos.index", "photos/a.png")
    kbt.search.prune("photos.index", folder=None)


def analysis() -> None:
    picture = np.zeros((20, 20, 3), "uint8")
    model = kbt.BridgeTowerVQA.from_preset(PRESET)
    shown: kbt.analysis.AttentionMap = kbt.analysis.attention_map(
        model, picture, "what color is it?", layer=-1
    )
    kbt.analysis.attention_rollout(model, picture, "what color is it?")
    kbt.analysis.relevance(model, picture, "what color is it?", answer=None)
    heads: kbt.analysis.HeadDiversity = kbt.analysis.head_diversity(model, [])
    print(shown.words, heads.mean, kbt.analysis.figures, kbt.convert)
