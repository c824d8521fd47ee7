"""Trains a variant of the model on easy-VQA, and scores it."""

import functools
import warnings

import ablation_encoders as encoders
import keras
from ablation_models import build
from ablation_models import weights_of
from ablation_questions import Questions
from ablation_questions import fit
from ablation_variants import BASE
from easy_world import captions as easy_vqa_captions
from easy_world import pictures
from easy_world import scenes as easy_vqa_scenes
from easy_world.training.tiny_family import PROJECTION_DIM
from easy_world.training.tiny_family import SEQUENCE_LENGTH
from easy_world.training.tiny_family import caption_rows
from easy_world.training.tiny_training import learn_vocabulary
from easy_world.training.tiny_training import stream

import keras_bridgetower as kbt
from keras_bridgetower.metrics.retrieval import retrieval_recall

# Pictures of the gallery on which recall is counted, five captions each.
GALLERY = 50


class Bench:
    """Everything that the runs of a table share.

    Args:
        settings: values of the command line.
        folder: path; pre-trained encoders are kept there.
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
        texts = [*pictures.load("train").questions, *captions]
        return kbt.BridgeTowerTokenizer(
            *learn_vocabulary(texts), SEQUENCE_LENGTH
        )

    def backbone(self, variant, seed):
        """A new backbone over the pre-trained encoders of its kind."""
        image, text = variant.image, variant.text
        files = [
            encoders.once(
                self.folder,
                image,
                lambda: encoders.image_encoder(
                    image, self.size, self.scenes["train"], self.settings
                ),
            ),
            encoders.once(
                self.folder,
                text,
                lambda: encoders.text_encoder(
                    text,
                    self.size,
                    self.tokenizer,
                    pictures.load("train").questions,
                    self.settings,
                ),
            ),
        ]
        keras.utils.set_random_seed(seed)
        backbone = build(variant, self.size)
        backbone.image_encoder.load_weights(files[0])
        backbone.text_encoder.load_weights(files[1])
        # The authors' first weights are of width 768: sums over fewer terms
        # would leave every attention even, and hardly learn.
        scale = (BASE.width / self.size.width) ** 0.5
        for weight in backbone.fusion.trainable_weights:
            if "kernel" in weight.path:
                weight.assign(weight * scale)
        for part in self.settings.frozen:
            getattr(backbone, part).trainable = False
        return backbone

    def vqa(self, variant, seed):
        """Train on questions; the scores on the test split, in percent."""
        backbone = self.backbone(variant, seed)
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

    def rsum(self, variant, seed):
        """Train matching on captions; the sum of recalls on the gallery."""
        settings, scenes = self.settings, self.scenes["train"]
        steps, batch_size = (
            settings.retrieval_steps,
            settings.retrieval_batch_size,
        )
        if not steps:
            return None
        backbone = self.backbone(variant, seed)
        task = kbt.BridgeTowerRetrieval(
            backbone,
            kbt.BridgeTowerRetrievalPreprocessor(
                self.tokenizer,
                encoders.converter(backbone.image_size),
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
        settings, answers = self.settings, pictures.answer_list()
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
            self._questions[side] = Questions(
                self.tokenizer, encoders.converter(side)
            )
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
            encoders.converter(task.backbone.image_size),
        )


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
