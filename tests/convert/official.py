"""State dicts with the authors' names and shapes, written down from theirs."""

import torch

WIDTH, LAYERS, FUSED, HEADS, ROWS, SIDE, PATCH = 64, 4, 3, 4, 100, 64, 16
ANSWERS = 7


def shapes(task, image_layers=LAYERS, bridges=True, managers=None):
    """Names and shapes of a checkpoint file for a task."""
    d, made = WIDTH, {}

    def linear(key, rows, columns=d, bias=True):
        made[f"{key}.weight"] = (rows, columns)
        if bias:
            made[f"{key}.bias"] = (rows,)

    def norm(key):
        made[f"{key}.weight"] = made[f"{key}.bias"] = (d,)

    visual = "vit_model.visual"
    made[f"{visual}.class_embedding"] = (d,)
    made[f"{visual}.positional_embedding"] = ((SIDE // PATCH) ** 2 + 1, d)
    made[f"{visual}.conv1.weight"] = (d, 3, PATCH, PATCH)
    norm(f"{visual}.ln_pre")
    norm(f"{visual}.ln_post")
    for i in range(image_layers):
        block = f"{visual}.transformer.resblocks.{i}"
        made[f"{block}.attn.in_proj_weight"] = (3 * d, d)
        made[f"{block}.attn.in_proj_bias"] = (3 * d,)
        linear(f"{block}.attn.out_proj", d)
        norm(f"{block}.ln_1")
        norm(f"{block}.ln_2")
        linear(f"{block}.mlp.c_fc", 4 * d)
        linear(f"{block}.mlp.c_proj", d, 4 * d)
    made["vit_model.positional_embedding"] = (77, d)
    norm("vit_model.ln_final")

    text = "text_transformer"
    made[f"{text}.embeddings.position_ids"] = (1, 66)
    made[f"{text}.embeddings.word_embeddings.weight"] = (ROWS, d)
    made[f"{text}.embeddings.position_embeddings.weight"] = (66, d)
    made[f"{text}.embeddings.token_type_embeddings.weight"] = (1, d)
    norm(f"{text}.embeddings.LayerNorm")

    def block(key, cross):
        for kind in ("attention", "crossattention")[: 1 + cross]:
            for part in ("query", "key", "value"):
                linear(f"{key}.{kind}.self.{part}", d)
            linear(f"{key}.{kind}.output.dense", d)
            norm(f"{key}.{kind}.output.LayerNorm")
        linear(f"{key}.intermediate.dense", 4 * d)
        linear(f"{key}.output.dense", d, 4 * d)
        norm(f"{key}.output.LayerNorm")

    for i in range(LAYERS):
        block(f"{text}.encoder.layer.{i}", cross=False)
    linear(f"{text}.pooler.dense", d)
    for side in ("text", "image"):
        linear(f"cross_modal_{side}_transform", d)
        linear(f"cross_modal_{side}_pooler.dense", d)
        for i in range(FUSED):
            block(f"cross_modal_{side}_layers.{i}", cross=True)
        if bridges:
            norm(f"cross_modal_{side}_layernorm")
            for i in range(FUSED - 1):
                norm(f"cross_modal_{side}_link_tower.{i}.LayerNorm")
        if managers:
            blocks = {"text": LAYERS, "image": image_layers}[side]
            made[f"layer_embeddings_{side}.weight"] = (blocks, d)
            for i in range(FUSED):
                key = f"cross_modal_{side}_manager_tower.{i}.manager_layer"
                made |= manager(key, "first" if i == 0 else managers)
    made["token_type_embeddings.weight"] = (3 if task == "nlvr2" else 2, d)
    made["temperature"] = ()
    if task in ("pretrain", "meter"):
        linear("mlm_score.transform.dense", d)
        norm("mlm_score.transform.LayerNorm")
        linear("mlm_score.decoder", ROWS, bias=False)
        made["mlm_score.bias"] = (ROWS,)
    if task in ("pretrain", "meter", "retrieval"):
        linear("itm_score.fc", 2, 2 * d)
    if task == "retrieval":
        linear("itc_text_head.fc", 32)
        linear("itc_image_head.fc", 32)
        linear("rank_output", 1, 2 * d)
    for name, classes, width in (
        ("vqa", ANSWERS, 2 * d),
        ("snli", 3, 2 * d),
        ("nlvr2", 2, 4 * d),
    ):
        if task == name:
            key = f"{name}_classifier"
            linear(f"{key}.0", 4 * d, width)
            made[f"{key}.1.weight"] = made[f"{key}.1.bias"] = (4 * d,)
            linear(f"{key}.3", classes, 4 * d)
    return made


def manager(key, kind):
    """Names and shapes of a manager of as many states as layers are fused."""
    d, n = WIDTH, FUSED
    made = {f"{key}.softmax_temperature{end}": (1,) for end in ("", "_cross")}
    norms = [f"LayerNorm.{i}" for i in range(n + (kind != "first"))]
    if kind == "adaptive_manager":
        norms.append("extra_query_LayerNorm")
        made[f"{key}.layer_scores_cross"] = (1, 1, 1, d)
        made[f"{key}.linear_controller.weight"] = (n, 2 * d)
        made[f"{key}.linear_controller.bias"] = (n,)
        for part in ("q_proj", "k_proj"):
            made[f"{key}.fusion_attention.{part}.weight"] = (d, d)
            made[f"{key}.fusion_attention.{part}.bias"] = (d,)
    else:
        made[f"{key}.layer_scores"] = (1, n + (kind != "first"), 1, d)
    for norm in norms:
        made |= {f"{key}.{norm}.{w}": (d,) for w in ("weight", "bias")}
    return made


def state_dict(task, seed=0, **kwargs):
    """Random tensors of these names."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(task, **kwargs).items():
        noise = torch.randn(shape, generator=generator)
        norm = len(shape) == 1 and name.endswith("weight")
        state[name] = float(norm) + noise * (0.1 if len(shape) < 2 else 0.05)
    state["temperature"] = torch.tensor(0.07)
    ids = "text_transformer.embeddings.position_ids"
    state[ids] = torch.arange(66)[None]
    return state


def save(path, task, seed=0, **kwargs):
    """Write a checkpoint file as Lightning does; its state dict."""
    state = state_dict(task, seed, **kwargs)
    config = dict(num_heads=HEADS, drop_rate=0.1, max_text_len=40)
    torch.save(
        {
            "epoch": 3,
            "pytorch-lightning_version": "1.5.10",
            "state_dict": state,
            "hyper_parameters": {"config": config},
            "optimizer_states": [{"state": {}, "param_groups": []}],
        },
        path,
    )
    return state


def as_transformers(state):
    """The tensors that transformers has a place for, by its names."""
    embeddings = {
        "class_embedding": "embeddings.class_embedding",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
    }
    made = {}
    for name, tensor in state.items():
        name = name.replace("text_transformer.", "text_model.")
        if name.startswith("vit_model.visual."):
            rest = name.removeprefix("vit_model.visual.")
            name = f"vision_model.visual.{embeddings.get(rest, rest)}"
        head = name.split(".")[0].endswith(("_score", "_head", "_classifier"))
        unread = name.startswith(("vit_model", "temperature", "rank_output"))
        if not head and not unread and "position_ids" not in name:
            made[name] = tensor[:2] if name.startswith("token_type") else tensor
    return made
