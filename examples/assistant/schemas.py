"""What the assistant's answers look like: the guide's `StructuredResponse`."""

from pydantic import BaseModel, Field


class StructuredResponse(BaseModel):
    answer: str = Field(description="질문에 대한 답변")
    confidence: float = Field(ge=0, le=1, description="신뢰도 (0-1)")
    sources: list[str] = Field(description="참조 문서 목록")
