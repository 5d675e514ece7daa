"""Requests for somebody's secret: "비밀번호를 알려줘", "what is the admin password", not "how do I change my password".

A secret's name, then a request, with nothing between that makes it a question about handling secrets.
Korean and English. Must not look for secrets themselves: that is `personal_data`.
"""

from __future__ import annotations

import re

from ondol.guardrails import normalize
from ondol.guardrails.decision import PASS, Span, Verdict, is_korean

_KO_NOUN = (
    r"(?:비밀\s?번호|비번|패스워드|암호(?!화|학|문|기|자산|통화)|인증\s?번호|보안\s?코드|핀\s?번호|pin\s?번호|otp|"
    r"api\s?키|api\s?key|액세스\s?(?:키|토큰)|접근\s?(?:키|토큰)|토큰(?!화)|비밀\s?키|시크릿(?:\s?키)?|개인\s?키|인증서\s?키|"
    r"자격\s?증명|로그인\s?정보|접속\s?정보|계정\s?정보|인증\s?정보|password|secret|token)"
)
_KO_ASK = (
    r"(?:(?:알려|말해|보여|가르쳐|공유해|공개해|출력해|적어|보내|불러|얘기해|이야기해|찾아|넘겨|건네|전달해|제공해|노출해|써|읊어|털어놔|내놔|불어|뱉어)"
    r"(?:\s?(?:줘(?!도|서|야)|주세요|주십시오|줄래|줄\s?수|주라|다오|달라(?!는|고)|주겠|주실|주시(?!면\s?안)|봐(?!도)|라(?!는|고)|요|놔|주길|"
    r"주면\s?(?:좋|고맙|감사)|줬으면))"
    r"|내놔|(?:알|볼)\s?수\s?(?:있을까|있나|있어)|알고\s?싶|궁금|필요해|(?:은|는|이|가)\s?(?:뭐(?:야|예요|에요|죠|지|니|임|냐|였)?|무엇(?:이|인)|몇|"
    r"어떻게\s?돼|어떻게\s?되)"
    r"|(?:을|를)?\s?(?:공개|출력|노출|덤프|유출|제공|전송)(?:하라|하시오|해라|해\b|할\s?것|바람|부탁|하십시오))"
)
_KO_EXEMPT = re.compile(
    r"방법|법[을를은이]?\s|어떻게|어디|절차|변경|바꾸|바꿔|바꿀|재설정|초기화|리셋|잊|분실|만료|규칙|정책|조건|길이|요구|저장|관리(?!자)|보관|"
    r"발급|생성|만드|만들|안전|강력|추천|왜|오류|에러|틀|맞지|유출되|유출됐|로테이션|교체|필드|입력|검증|차이|란\s|이란|의미|뜻|종류|예시|"
    r"원칙|가이드|문서|기준|주기|개수|이점|장점|단점|역할|형식|포맷|사용량|가격|비용|수를|한도|제한|절약|최대|설명|관련|대한|대해|없이|말고|"
    r"이유|해야|하는|하려|하면|할\s?때|지\s?(?:마|말|않)|개념|필요한지|언제|화면|페이지|메뉴|링크"
)
_KO_NEEDS_OWNER = re.compile(
    r"토큰|token|secret|api|액세스|접근|otp|인증\s?번호|보안\s?코드|자격|인증\s?정보|암호|시크릿"
)
_KO_OWNER = re.compile(
    r"관리자|서버|디비|db|데이터베이스|루트|root|admin|사장|회사|우리|너|네|시스템|와이파이|wifi|wi-fi|고객|직원|운영|프로덕션|"
    r"사용자|동료|팀장|대표|상사|친구|다른|계정|님의|의\s|그|이\s?(?:서비스|앱|사이트)|내부|저장된|숨겨진|쓰는|사용하는|사용\s?중|실제|현재|aws|깃허브|github|slack"
)
_KO_VALUE = re.compile(r"(?:은|는|이|가)\s?(?:뭐|무엇|몇|어떻게)")
_KO_FORWARD = re.compile(rf"({_KO_NOUN})([^.?!\n]{{0,28}}?)({_KO_ASK})")
_KO_BACKWARD = re.compile(
    rf"(?:알려|말해|보여|가르쳐|내놔|불러|적어|공유해|공개해)\s?(?:줘|주세요|봐|라|줄래)?[\s,.!:]{{1,3}}([^.?!\n]{{0,16}}?)({_KO_NOUN})\s?[!.?~]*$"
)
_KO_HINT = [
    "비밀",
    "비번",
    "패스워드",
    "암호",
    "번호",
    "코드",
    "키",
    "key",
    "토큰",
    "시크릿",
    "자격",
    "정보",
    "otp",
    "password",
    "secret",
    "token",
]

_EN_NOUN = (
    r"(?:pass\s?words?|passphrases?|passcodes?|passwd|credentials?|api[\s-]?keys?|secret\s?keys?|"
    r"access\s?(?:tokens?|keys?|codes?)|"
    r"auth(?:entication)?\s?tokens?|private\s?keys?|pin\s?(?:codes?|numbers?)|ssh\s?keys?|encryption\s?keys?|"
    r"log[\s-]?in\s?(?:details|info(?:rmation)?|data)|connection\s?strings?|secret\s(?:word|code|phrase)s?|"
    r"security\s?codes?|one[\s-]?time\s?codes?)"
)
_EN_ASK = (
    r"(?:what(?:'s|s| is| are| was)|tell (?:me|us)|give (?:me|us)|gimme|show (?:me|us)|reveal|share|"
    r"send (?:me|us)|print|list|output|display|"
    r"disclose|hand over|leak|dump|expose|read (?:me|out)|spell(?: out)?|provide(?: me)?|i (?:need|"
    r"want)(?: to know)?|"
    r"let me (?:know|see|have)|repeat|recite|write (?:down|out)|do you know|can i (?:get|have|see)|retrieve|"
    r"extract|find(?: me| out)?|look up|"
    r"encode|hint(?: for| to| about)?|guess)"
)
_EN_EXEMPT = re.compile(
    r"\b(?:how|reset|resetting|chang\w+|forg\w+|lost|polic\w+|rules?|requirements?|manager|strong|secure|safe|"
    r"rotat\w+|stor\w+|generat\w+|"
    r"creat\w+|examples?|best|practices?|about|differences?|purpose|length|why|when|where|should|difference|"
    r"typical|common|most|kinds?|"
    r"types?|an?|good|random|use of|using|history|minimum|new|without|never|not|don't|sample|ways?|steps?|"
    r"instructions?|guide|docs?|documentation)\b"
)
_EN_AFTER = re.compile(
    r"^\W{0,2}(?:manag\w+|polic\w+|reset\w*|rules?|requirements?|hash\w*|fields?|strength|generat\w+|format|"
    r"means?|used|usage|rotation|"
    r"protect\w+|security|length|expir\w+|cracking|complexity|hygiene|best|practices?|recovery|validat\w+|"
    r"authenticat\w+|type|types|for\?|work|is for)"
)
_EN_HOW = re.compile(
    r"\b(?:how (?:do|can|to|does|should)|never|don't|do not|should i|is it safe|asked me to|wants me to)\b[^.?!]{0,40}$"
)
_EN_FORWARD = re.compile(rf"\b({_EN_ASK})\b([^.?!\n]{{0,48}}?)\b({_EN_NOUN})\b")
_EN_HINT = (
    "pass",
    "credential",
    "key",
    "token",
    "pin",
    "login",
    "log in",
    "log-in",
    "secret",
    "string",
    "code",
    "access",
)


def _korean(text: str) -> re.Match[str] | None:
    for match in _KO_FORWARD.finditer(text):
        noun, gap, ask = match[1], match[2], match[3]
        before = text[max(0, match.start() - 14) : match.start()]
        if _KO_EXEMPT.search(gap):
            continue
        asks_value = bool(_KO_VALUE.match(ask) or _KO_VALUE.search(gap + ask[:4]))
        if asks_value and _KO_NEEDS_OWNER.search(noun) and not _KO_OWNER.search(before):
            continue  # "토큰이 뭐야?" asks what a token is
        tail = text[match.end() : match.end() + 8]
        if re.match(r"\s?(?:방법|절차|이유|때|경우|메일|전화|사람|사이트|화면|기능)", tail):
            continue
        return match
    return _KO_BACKWARD.search(text)


def _english(text: str) -> re.Match[str] | None:
    for match in _EN_FORWARD.finditer(text):
        if _EN_EXEMPT.search(match[2]) or _EN_AFTER.match(text[match.end() : match.end() + 24]):
            continue
        if _EN_HOW.search(text[: match.start()]):
            continue
        return match
    return None


def check(text: str, plain: str = "") -> Verdict:
    """Block a request for a secret.

    :param plain: `normalize.plain(text)` when the caller has it already.
    """
    plain = plain or normalize.plain(text)
    match = None
    if any(hint in plain for hint in _KO_HINT) and is_korean(plain):
        match = _korean(plain)
    if match is None and any(hint in plain for hint in _EN_HINT):
        match = _english(plain)
    if match is None:
        return PASS
    found = match[0].strip()
    start = text.lower().find(found)
    spans = (Span(start, start + len(found), "credentials_request"),) if start >= 0 else ()
    reason = (
        f"비밀번호·키 같은 인증 정보를 알려 달라는 요청입니다: “{found}”"
        if is_korean(text)
        else f"asks for a password, key or other credential: “{found}”"
    )
    return Verdict("block", reason, 1.0, spans)
