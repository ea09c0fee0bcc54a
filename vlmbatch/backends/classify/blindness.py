"""Recognises an answer in which the model says that it cannot see its picture."""

import re

FIRST_CHARACTERS = 400
"""A model says so at the start of its answer; later text may be read from a picture."""

_PICTURE = r"(image|picture|photo|photograph|visual|attachment)s?( data| files?| contents?)?"
_PICTURES = rf"{_PICTURE}((,| or| and)( other)? ({_PICTURE}|files|videos|links|documents|media))*+"
_ANY = r"( (any|the|an?|your|this|that|these|those|actual|attached|provided|uploaded|such))*"
_HOW = r"( \w+ly)?"
_NOT = r"( can ?not| can't| couldn't| do not| don't| did not| didn't|( am|'m) (unable|not able) to)"
_CANNOT = rf"\b(i|we){_HOW}{_NOT}{_HOW}"
_VERB = r"(see|view|look at|access|analy[sz]e|process|open|display|interpret|perceive|receive|find)"
_LOOK = rf" {_VERB}((,| or| and) {_VERB})*"
_GIVEN = r"(provided|attached|uploaded|included|shared|given|sent|received|supplied)"
_HERE = r"in (your|our|the|this) (message|conversation|chat|prompt|request|input)"
_END = (
    r"(?=\W*$|[.,;:!?)(\"]| (directly|here|yet|itself|at all|at this|right now|(that )?you|(that )?i)\b"
    rf"| {_GIVEN}\b| {_HERE}| (but|because|since|as|so|to describe|to analy[sz]e|from|like)\b)"
)
_MODEL = r"(ai|model|assistant|llm|chatbot|system)"
_TEXT_MODEL = rf"text[- ](based|only)( \w+)? {_MODEL}|text[- ](based|only) {_MODEL}"
_ABILITY = r"(do not have|don't have|lack|have no)( the| any)? (ability|capability|capabilities|way)"
_BEGIN = r"(?:(?<![a-z])(?=[adhilnptwy])|(?=[\[<]))"
"""Where one of the phrases can begin; without this the search of every answer takes several times as long."""
_ADMISSIONS = re.compile(
    _BEGIN
    + "(?:"
    + "|".join(
        (
            r"\[img-\d+\]|<image>",
            rf"{_CANNOT}{_LOOK}{_ANY} {_PICTURES}{_END}",
            rf"\bi( do not| don't){_HOW} have{_HOW} access to{_ANY} {_PICTURE}",
            rf"\b{_ABILITY} to{_LOOK}{_ANY} {_PICTURE}",
            rf"\b(as|i am|i'm) an?( \w+){{0,3}} ({_TEXT_MODEL})\b",
            r"\bi can only (process|read|understand|work with|respond to|see) text",
            rf"\bplease( \w+)? (provide|upload|share|attach|send)( me)?{_ANY} {_PICTURE}\b"
            r"(?=[^.]{0,30}\b(i|me|you'd|you would|you want|you are|you're|again|description)\b)",
            rf"(?:^|(?<=[.!] ))please (provide|share|send|attach|upload) (the|an|your) {_PICTURE}\b",
            rf"\bno {_PICTURE} (was|were|is|are|has been|have been)( \w+)? {_GIVEN}",
            rf"\bthere( is| was| are| were|'s)( \w+)? no {_PICTURE}( \w+)? ({_GIVEN}|{_HERE})",
            rf"\byou( have not| haven't| did not| didn't)( \w+)? "
            rf"(provided?|attach(ed)?|upload(ed)?|shared?|sent|send)( me)?{_ANY} {_PICTURE}",
        )
    )
    + ")"
)
_BASE64 = re.compile(r"\W*(this|it|that) (is|appears|seems|looks)[^.]{0,30}\bbase64\b")
_QUOTED = re.compile('"[^"]*("|$)|\u201c[^\u201d]*(\u201d|$)|\u00ab[^\u00bb]*(\u00bb|$)')


def admits_blindness(text: str) -> bool:
    """Whether the model says in its own words that it sees no picture.

    Quoted text does not count, since it is often read from the picture, unless the answer is JSON.
    """
    text = text[:FIRST_CHARACTERS].lower().replace("\u2019", "'")
    if not text.lstrip().startswith(("{", "[")):
        text = _QUOTED.sub("", text)
    text = " ".join(text.split())
    return _ADMISSIONS.search(text) is not None or _BASE64.match(text) is not None
