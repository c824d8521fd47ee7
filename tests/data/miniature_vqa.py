"""Small VQAv2 and Visual Genome questions in the files of their authors."""

import miniature_captions
from miniature_pictures import pictures
from miniature_pictures import write_json

PARTS = {
    "train2014": range(12),
    "val2014": range(12, 18),
    "test2015": range(18, 24),
}


def people(answer):
    """Return ten answers: six expected, two spelled differently, two others."""
    answers = [answer] * 6 + [f"{answer.title()}."] * 2 + ["dont know"] * 2
    return [{"answer": text} for text in answers]


def vqav2(folder):
    for year, numbers in PARTS.items():
        questions, annotations = [], []
        for number in numbers:
            item = pictures()[number]
            item.save(folder / year / f"COCO_{year}_{number:012d}.jpg")
            for i, (question, answer) in enumerate(item.questions):
                ids = {"question_id": 1000 * number + i, "image_id": number}
                questions.append(ids | {"question": question})
                answers = {
                    "multiple_choice_answer": answer,
                    "answers": people(answer),
                }
                annotations.append(ids | answers)
        files = {f"OpenEnded_mscoco_{year}_questions": questions}
        if year == "test2015":
            files["OpenEnded_mscoco_test-dev2015_questions"] = questions[::2]
        else:
            files[f"mscoco_{year}_annotations"] = annotations
        for name, rows in files.items():
            content = {"info": {}, name.rpartition("_")[2]: rows}
            write_json(folder / f"vqav2/v2_{name}.json", content)
    return folder, {}


def vgqa(folder):
    """Write files in which the even pictures claim to be in COCO.

    Of each picture one question is repeated, one has two answers, and one
    has an answer that is no class.
    """
    coco, genome = folder / "coco", folder / "vg"
    vqav2(coco)
    miniature_captions.coco(coco)
    rows, data = [], []
    for number, item in enumerate(pictures()):
        side = "VG_100K" if number % 2 else "VG_100K_2"
        item.save(genome / "images" / side / f"{number}.jpg")
        mentioned = [(q, f"{a.title()}.") for q, a in item.questions]
        mentioned += [
            mentioned[0],
            ("Is it nice?", "Yes."),
            ("Is it nice?", "No."),
            ("What is it made of?", "Chalk."),
        ]
        pairs = [
            {"qa_id": 1000 * number + i, "question": q, "answer": a}
            for i, (q, a) in enumerate(mentioned)
        ]
        rows.append({"id": number, "qas": pairs})
        coco_id = None if number % 2 else number
        data.append({"image_id": number, "url": "", "coco_id": coco_id})
    write_json(genome / "annotations/question_answers.json", rows)
    write_json(genome / "image_data.json", data)
    return genome, {"coco": str(coco)}
