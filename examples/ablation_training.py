"""How a variant is trained and scored on easy-VQA, in about a minute.

As in the paper the encoders are pre-trained and the cross-modal layers are
not: each kind of image encoder first learns, once, to name what the training
pictures show, and all variants start from it. The text encoders start from
random weights; the questions have 26 words.
"""

import functools
import types
import warnings

import keras
from ablation_models import build
from ablation_models import weights_of
from ablation_questions import Questions
from ablation_questions import fit
from ablation_variants import Variant
from tiny_family import PROJECTION_DIM
from tiny_family import SEQUENCE_LENGTH
from tiny_family import caption_rows
from tiny_training import learn_vocabulary
from tiny_training import stream
from tiny_training import train_image_tower

import keras_bridgetower as kbt
from keras_bridgetower.data import easy_vqa
from keras_bridgetower.data import easy_vqa_captions
from keras_bridgetower.data import easy_vqa_scenes
from keras_bridgetower.metrics.retrieval import retrieval_recall

# Pictures of the gallery on which recall is counted, five captions each.
GALLERY = 50


class Bench:
    """Everything that the runs of a table share.

    Args:
        settings: values of the command line.
        folder: path; trained image encoders are kept there.
        size: `Size` of the models.
    """

    def __init__(self, settings, folder, size):
        self.settings, self.folder, self.size = settings, folder, size
        self._questions = {}

    @functools.cached_property
    def scenes(self):
        return {n: easy_vqa_scenes.load_scenes(n) for n in ("train", "test")}

    @functools.cached_property
    def tokenizer(self):
        captions = easy_vqa_captions.captions(self.scenes["train"]).texts
        texts = [*easy_vqa.load("train").questions, *captions]
        return kbt.BridgeTowerTokenizer(
            *learn_vocabulary(texts), SEQUENCE_LENGTH
        )

    def backbone(self, variant, seed):
        """A new backbone over the trained image encoder of its kind."""
        path = self._image_encoder(variant.image)
        keras.utils.set_random_seed(seed)
        backbone = build(variant, self.size)
        backbone.image_encoder.load_weights(path)
        return backbone

    def vqa(self, backbone, seed):
        """Train on questions; the scores on the test split, in percent."""
        questions = self._questions_at(backbone.image_size)
        task = kbt.BridgeTowerVQA(backbone, answers=questions.answers)
        settings = self.settings
        questions.train(
            task,
            settings.steps,
            settings.batch_size,
            settings.learning_rate,
            seed,
        )
        return questions.scores(task)

    def rsum(self, backbone, seed):
        """Train matching on captions; the sum of recalls on the gallery."""
        settings, scenes = self.settings, self.scenes["train"]
        steps, batch_size = (
            settings.retrieval_steps,
            settings.retrieval_batch_size,
        )
        if not steps:
            return None
        task = kbt.BridgeTowerRetrieval(
            backbone,
            kbt.BridgeTowerRetrievalPreprocessor(
                self.tokenizer,
                _converter(backbone.image_size),
                "hard_negatives",
                features=tuple(backbone.input),
            ),
            "hard_negatives",
            PROJECTION_DIM,
        )
        epochs = -(-steps * batch_size // len(scenes.values)) + 1
        data, _ = stream(scenes, caption_rows, epochs, batch_size, seed)
        fit(task, data.take(steps), steps, settings.learning_rate)
        return _rsum(task, self.scenes["test"])

    def preset(self, path):
        """A preset, fine-tuned by `preset_steps`.

        Returns:
            `(parameters, scores)`.

        Raises:
            ValueError: it has no head for these answers, and no step was
                asked for; or no tokenizer.
        """
        settings, answers = self.settings, easy_vqa.answer_list()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task = kbt.BridgeTowerVQA.from_preset(path, answers=answers)
        new = any("New and random" in str(w.message) for w in caught)
        if new and not settings.preset_steps:
            raise ValueError(
                "`--preset` must have a head for easy-VQA's 13 answers, or be "
                "fine-tuned first: give `--preset-steps`. "
                f"Received: --preset {path}"
            )
        questions = self._questions_of(task)
        # Features come from `questions`.
        task.preprocessor = None
        if settings.preset_steps:
            questions.train(
                task,
                settings.preset_steps,
                settings.batch_size,
                settings.preset_learning_rate,
                0,
            )
        return weights_of(task), questions.scores(task)

    def _questions_at(self, side):
        if side not in self._questions:
            self._questions[side] = Questions(self.tokenizer, _converter(side))
        return self._questions[side]

    def _questions_of(self, task):
        """The questions as a preset's own preprocessor reads them."""
        if task.preprocessor is not None:
            own = task.preprocessor
            return Questions(own.tokenizer, own.image_converter)
        if self.settings.tokenizer is None:
            raise ValueError(
                "`--tokenizer` must name a preset whose tokenizer fits: there "
                "is none with the weights. Received: --tokenizer None"
            )
        return Questions(
            kbt.BridgeTowerTokenizer.from_preset(self.settings.tokenizer),
            _converter(task.backbone.image_size),
        )

    def _image_encoder(self, name):
        """The file of a trained image encoder, made when first needed."""
        path = self.folder / f"{name.replace('/', '-')}.weights.h5"
        if path.exists():
            return path
        keras.utils.set_random_seed(0)
        variant = Variant("", {"num_layers": 1}, image=name)
        backbone = build(variant, self.size)
        converter = _converter(backbone.image_size)
        learner = types.SimpleNamespace(
            backbone=backbone,
            preprocessor=types.SimpleNamespace(image_converter=converter),
        )
        print(f"{name} learns to name what pictures show.", flush=True)
        found = train_image_tower(
            learner,
            self.scenes["train"],
            list(easy_vqa_scenes.ATTRIBUTES),
            self.settings.tower_epochs,
            self.settings,
        )
        print(f"{name}: accuracies {found}", flush=True)
        written = path.with_name(f"new-{path.name}")
        backbone.image_encoder.save_weights(written)
        written.replace(path)
        return path


def _converter(side):
    return kbt.BridgeTowerImageConverter(side, mode="squash")


def _rsum(task, scenes):
    pool = easy_vqa_captions.gallery(scenes)
    count = GALLERY * len(easy_vqa_captions.TEMPLATES)
    scores = task.rank(
        list(scenes.data.images[pool.pictures[:GALLERY]]),
        pool.texts[:count],
        batch_size=256,
        verbose=0,
    )
    return round(retrieval_recall(scores, pool.owner[:count]).rsum, 3)
