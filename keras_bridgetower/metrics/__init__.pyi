from .calibration import energy as energy
from .calibration import (
    expected_calibration_error as expected_calibration_error,
)
from .calibration import fit_temperature as fit_temperature
from .calibration import threshold_for as threshold_for
from .classification import NLVR2Report as NLVR2Report
from .classification import evaluate_nlvr2 as evaluate_nlvr2
from .classification import f1_score as f1_score
from .classification import matthews_correlation as matthews_correlation
from .classification import spearman_correlation as spearman_correlation
from .keras_metrics import NDCG as NDCG
from .keras_metrics import ContrastiveAccuracy as ContrastiveAccuracy
from .keras_metrics import MaskedTokenAccuracy as MaskedTokenAccuracy
from .keras_metrics import VQAScore as VQAScore
from .retrieval import RetrievalReport as RetrievalReport
from .retrieval import retrieval_recall as retrieval_recall
from .vqa import VQAReport as VQAReport
from .vqa import answer_list as answer_list
from .vqa import evaluate_vqa as evaluate_vqa
from .vqa import normalize_answer as normalize_answer
from .vqa import score_answer as score_answer
from .vqa import soft_scores as soft_scores
from .vqa import write_vqa_results as write_vqa_results
