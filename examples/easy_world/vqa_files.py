"""Writes easy-VQA in the file format of VQAv2."""

import json
import pathlib


def write_vqa_files(data, folder):
    """Write a split as VQAv2 does, with ten equal answers to each question.

    Args:
        data: `EasyVQA`.
        folder: an existing folder, for `questions.json` and
            `annotations.json`. Question ids are the rows of `data`.

    Returns:
        Both paths.

    Example:

    ```python
    questions, annotations = write_vqa_files(load("test"), ".")
    ```

    Source: file format of the VQA challenge.
    """
    asked, answered = [], []
    rows = zip(
        data.image_index.tolist(), data.questions, data.answers, strict=True
    )
    for row, (image, question, answer) in enumerate(rows):
        ids = {"question_id": row, "image_id": image}
        asked.append({**ids, "question": question})
        people = [
            {"answer": answer, "answer_confidence": "yes", "answer_id": i}
            for i in range(1, 11)
        ]
        answered.append(
            {
                **ids,
                "question_type": " ".join(question.split()[:2]),
                "answer_type": "yes/no" if answer in ("yes", "no") else "other",
                "multiple_choice_answer": answer,
                "answers": people,
            }
        )
    folder = pathlib.Path(folder)
    paths = []
    for name, held in (("questions", asked), ("annotations", answered)):
        paths.append(folder / f"{name}.json")
        with open(paths[-1], "w", encoding="utf-8") as file:
            json.dump({name: held}, file)
    return tuple(paths)
