"""The Korean words of the pages about monitoring, the loop and alerts."""

from __future__ import annotations

KOREAN = {
    "Monitoring": "모니터링",
    "Loop": "루프",
    "Alerts": "알림",
    "What services are asked, and how right they answer, window by window.": (
        "서비스가 무엇을 질문받고 얼마나 맞게 답하는지 창마다 봅니다."
    ),
    "requests per hour": "시간당 요청",
    "in the last day": "지난 하루",
    "newest look at the inputs": "입력을 가장 최근에 본 결과",
    "Drift by column": "열마다의 드리프트",
    "Effect in each of {windows} windows, all on one scale; dashed: the least that matters; dots: drifted.": (
        "창 {windows}개에서의 효과. 모두 같은 눈금이며, 점선은 문제가 되는 최소값, 점은 드리프트입니다."
    ),
    "No window has been looked at yet.": "아직 살펴본 창이 없습니다.",
    "What was heard, what was done about it, and what was decided in the end.": (
        "무엇을 들었고, 무엇을 했으며, 결국 무엇을 판정했는지 보여 줍니다."
    ),
    "Signals that nobody answers yet": "아직 답하지 않은 신호",
    "signal": "신호",
    "Retrainings": "재학습",
    "No retraining yet.": "아직 재학습이 없습니다.",
    "Actions": "조치",
    "quality": "품질",
    "schedule": "일정",
    "data": "데이터",
    "change": "변경",
    "hand": "사람",
    "degraded": "품질 저하",
    "baseline": "기준",
    "started": "시작",
    "done": "끝남",
    "given up": "포기",
    "What a person should know, and who was told.": "사람이 알아야 할 일과, 누가 알림을 받았는지 보여 줍니다.",
    "No alert yet.": "아직 알림이 없습니다.",
    "silence": "잠재우기",
    "every kind": "모든 종류",
    "anything": "모든 대상",
    "message": "내용",
    "sent": "보냄",
    "waiting": "대기",
    "given_up": "포기",
    "silenced": "잠재움",
    "acknowledged": "확인함",
    "nobody to tell": "받을 곳 없음",
    "critical": "심각",
    "warning": "경고",
    "info": "정보",
    "rollback": "롤백",
    "load": "적재",
    "budget": "예산",
    "worker": "프로세스",
    "conductor": "지휘자",
}
