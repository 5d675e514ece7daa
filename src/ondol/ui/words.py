"""The words of the pages in Korean and English, and which of the two a reader wants."""

from __future__ import annotations

from ondol.ui import words_monitoring

LANGUAGES = ("en", "ko")
COOKIE = "ondol_language"

_KOREAN = {
    "Overview": "개요",
    "Services": "서비스",
    "Rollouts": "롤아웃",
    "Releases": "릴리스",
    "Decisions": "판정",
    "Pipeline runs": "파이프라인 실행",
    "History": "이력",
    "Experiments": "실험(MLflow)",
    "service": "서비스",
    "services": "서비스",
    "kind": "종류",
    "stable": "안정판",
    "candidate": "후보",
    "weight": "비중",
    "state": "상태",
    "reason": "이유",
    "when": "시각",
    "action": "조치",
    "verdict": "판정",
    "subject": "대상",
    "metric": "지표",
    "requests": "요청 수",
    "evidence": "근거",
    "limit": "기준",
    "difference": "차이",
    "of requests": "의 요청",
    "On trial": "시험 중",
    "Serving": "서비스 중",
    "Recent decisions": "최근 판정",
    "Recent runs": "최근 실행",
    "on trial": "시험 중",
    "decisions": "판정",
    "pipeline runs": "파이프라인 실행",
    "No service is served yet.": "아직 서비스가 없습니다.",
    "Nothing has been decided yet.": "아직 판정이 없습니다.",
    "No rollout yet.": "아직 롤아웃이 없습니다.",
    "No pipeline has run yet.": "아직 실행된 파이프라인이 없습니다.",
    "No release yet.": "아직 릴리스가 없습니다.",
    "No alias or stage was moved yet.": "아직 별칭이나 단계를 옮긴 적이 없습니다.",
    "Try": "다음을 실행해 보세요:",
    "Evidence for harm": "악화의 근거",
    "Evidence for safety": "안전의 근거",
    "Evidence on its way to a decision": "판정을 향해 쌓이는 근거",
    "{metric}: candidate − stable, 95 % at all times": "{metric}: 후보 − 안정판, 언제 봐도 유효한 95 % 구간",
    "harm": "악화",
    "safety": "안전",
    "copies only": "복제 요청만",
    "strategy": "방식",
    "no_difference": "차이 없음",
    "compared": "비교 완료",
    "drop": "변형 제외",
    "bake": "안정화",
    "go_on": "계속",
    "Error rate": "오류율",
    "Loss of labelled requests": "정답이 있는 요청의 손실",
    "requests of the rollout": "롤아웃의 요청",
    "Everything as JSON": "전체 JSON",
    "This decision as JSON": "이 판정의 JSON",
    "Serving requests": "요청 처리 상태",
    "data plane": "데이터 플레인",
    "Manifest": "명세",
    "made": "생성",
    "name": "이름",
    "digest": "다이제스트",
    "pipeline": "파이프라인",
    "steps": "단계",
    "cached": "캐시",
    "took": "소요",
    "started": "시작",
    "Parameters": "매개변수",
    "Steps": "단계",
    "Outputs": "출력",
    "log": "로그",
    "Log of": "로그:",
    "Timeline": "타임라인",
    "open in MLflow": "MLflow에서 열기",
    "MLflow run": "MLflow 실행",
    "model": "모델",
    "who": "누가",
    "what": "무엇",
    "move": "이동",
    "outcome": "결과",
    "before": "이전",
    "not found": "찾을 수 없음",
    "There is no such page.": "그런 페이지가 없습니다.",
    "Go to the overview": "개요로 가기",
    "step": "단계",
    "policy": "정책",
    "until a decision": "판정까지",
    "about": "약",
    "more": "더",
    "interval": "신뢰 구간",
    "numbers count up to {value}": "수는 {value}까지만 셉니다",
    "The candidate got {weight} of the units.": "후보가 단위의 {weight}를 맡았습니다.",
    "not loaded": "적재되지 않음",
    "progressing": "진행 중",
    "promoted": "승격",
    "rolled_back": "롤백",
    "inconclusive": "판단 불가",
    "aborted": "중단",
    "succeeded": "성공",
    "failed": "실패",
    "running": "실행 중",
    "cancelled": "취소",
    "skipped": "건너뜀",
    "pending": "대기",
    "pass": "통과",
    "fail": "불합격",
    "not-enough-data": "자료 부족",
    "drift": "드리프트",
    "roll_back": "롤백",
    "promote": "승격",
    "advance": "단계 올림",
    "start": "시작",
    "abort": "중단",
    "gate": "게이트",
    "retrain": "재학습",
    "alias": "별칭",
    "hold": "보류",
    "Artifacts": "아티팩트",
    "Asked for": "요청됨",
    "Again and again": "반복 실행",
    "next": "다음",
    "every {seconds} s": "{seconds}초마다",
    "switched off": "꺼짐",
}

_KOREAN = {**words_monitoring.KOREAN, **_KOREAN}


class Words:
    """Turns English into the reader's language; a word without translation stays English."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "en"

    def __call__(self, text: str, **values: object) -> str:
        found = _KOREAN.get(text, text) if self.language == "ko" else text
        return found.format(**values) if values else found


def wanted(query: str, cookie: str, accepted: str) -> str:
    """Choose a language: asked for now, chosen before, else the browser's first one that we have.

    :param accepted: the `Accept-Language` header.
    """
    for choice in (query, cookie):
        if choice in LANGUAGES:
            return choice
    ranked = []
    for part in accepted.split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            ranked.append((-float(quality or 1), tag.split("-")[0].lower()))
        except ValueError:
            continue
    return next((tag for _, tag in sorted(ranked, key=lambda one: one[0]) if tag in LANGUAGES), "en")
