"""Models of `transformers` at the published base sizes, with random weights."""

import dataclasses

import peers
import transformers as hf
from peers_pyramids import moving
from peers_texts import DEBERTA

B16 = {"patch_size": 16}
# Names of peers by side, and functions that make them at base size.
BASE = {
    ("image", "CLIP"): lambda: hf.CLIPModel(hf.CLIPConfig(vision_config=B16)),
    ("image", "MetaCLIP 2 (quick_gelu)"): lambda: hf.MetaClip2Model(
        hf.MetaClip2Config(vision_config=B16)
    ),
    ("image", "SigLIP"): lambda: hf.SiglipModel(hf.SiglipConfig()),
    ("image", "ViT"): lambda: hf.ViTForImageClassification(hf.ViTConfig()),
    ("image", "DeiT"): lambda: hf.DeiTModel(hf.DeiTConfig()),
    ("image", "DINOv2"): lambda: hf.Dinov2ForImageClassification(
        hf.Dinov2Config(patch_size=14)
    ),
    ("image", "DINOv2 registers"): lambda: hf.Dinov2WithRegistersModel(
        hf.Dinov2WithRegistersConfig(patch_size=14)
    ),
    ("image", "DINOv3"): lambda: hf.DINOv3ViTModel(
        hf.DINOv3ViTConfig(
            hidden_size=768,
            num_attention_heads=12,
            intermediate_size=3072,
            num_register_tokens=4,
        )
    ),
    ("image", "EfficientNet"): lambda: moving(
        hf.EfficientNetModel(
            hf.EfficientNetConfig(
                width_coefficient=1.0,
                depth_coefficient=1.0,
                image_size=224,
                hidden_dim=1280,
            )
        )
    ),
    ("image", "ResNet of bottleneck blocks"): lambda: moving(
        hf.ResNetModel(hf.ResNetConfig())
    ),
    ("image", "Swin"): lambda: hf.SwinModel(hf.SwinConfig()),
    ("text", "RoBERTa"): lambda: hf.RobertaForMaskedLM(
        hf.RobertaConfig(
            layer_norm_eps=1e-5,
            type_vocab_size=1,
            max_position_embeddings=514,
            vocab_size=50_265,
        )
    ),
    ("text", "XLM-RoBERTa"): lambda: hf.XLMRobertaForMaskedLM(
        hf.XLMRobertaConfig(
            layer_norm_eps=1e-5,
            type_vocab_size=1,
            max_position_embeddings=514,
            vocab_size=250_002,
        )
    ),
    ("text", "BERT"): lambda: hf.BertModel(hf.BertConfig()),
    ("text", "DistilBERT"): lambda: hf.DistilBertForMaskedLM(
        hf.DistilBertConfig()
    ),
    ("text", "ELECTRA"): lambda: hf.ElectraForMaskedLM(
        hf.ElectraConfig(
            hidden_size=768,
            embedding_size=768,
            num_attention_heads=12,
            intermediate_size=3072,
        )
    ),
    ("text", "ALBERT"): lambda: hf.AlbertForPreTraining(
        hf.AlbertConfig(
            hidden_size=768, num_attention_heads=12, intermediate_size=3072
        )
    ),
    ("text", "DeBERTa-v3"): lambda: hf.DebertaV2ForMaskedLM(
        hf.DebertaV2Config(
            vocab_size=128_100,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            type_vocab_size=0,
            **DEBERTA | {"position_buckets": 256},
        )
    ),
    ("text", "CLIP"): lambda: hf.CLIPModel(hf.CLIPConfig()),
    ("text", "SigLIP"): lambda: hf.SiglipModel(hf.SiglipConfig()),
    ("text", "MetaCLIP 2"): lambda: hf.MetaClip2Model(
        hf.MetaClip2Config(text_config={"vocab_size": 901_629})
    ),
}
# KerasHub has no rows of positions for padding, and no token type.
PARAMETERS = dict.fromkeys(
    ("RoBERTa", "XLM-RoBERTa"), lambda m: peers.count(m.roberta) - 3 * 768
)
# Texts of SigLIP have one length, and an id in front.
LENGTHS = {"SigLIP": 65}


def base_peers():
    """Return the peers at base size."""
    found = {(p.side, p.name): p for p in peers.all_peers()}
    return [
        dataclasses.replace(
            found[side, name],
            make=lambda make=make: make().eval(),
            image_size=224,
            length=LENGTHS.get(name, 20),
            parameters=PARAMETERS.get(name, found[side, name].parameters),
        )
        for (side, name), make in BASE.items()
        if (side, name) in found
    ]
