"""The routes about images: /analyze, /analyze/upload, /analyze/optimized and /analyze/batch."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from vlmbatch.service.answers import answered, note, reply
from vlmbatch.service.batches import BatchReply
from vlmbatch.service.call import Call
from vlmbatch.service.fields import (
    MOST_IMAGES,
    AnalyzeBody,
    Answer,
    BatchBody,
    BatchImage,
    BatchLine,
    Fields,
    OptimizedBody,
    SizedFields,
)
from vlmbatch.service.openapi import bodies, failures, lines
from vlmbatch.service.reading import Upload, decoded_upload, form_body, is_form, json_body
from vlmbatch.service.service import Service

router = APIRouter(tags=["images"])


@router.post("/analyze", response_model=Answer, responses=failures(), openapi_extra=bodies(json=AnalyzeBody))
async def analyze(request: Request) -> Response:
    """Ask about an image in base64."""
    body = await json_body(request, AnalyzeBody)
    return await _one(request, body, decoded_upload(request, body.image_base64))


@router.post(
    "/analyze/upload", response_model=Answer, responses=failures(), openapi_extra=bodies(form=Fields)
)
async def upload(request: Request) -> Response:
    """Ask about an uploaded image; the prompt is a field of the form or of the URL."""
    fields, (picture,) = await form_body(request, Fields)
    return await _one(request, fields, picture)


@router.post(
    "/analyze/optimized",
    response_model=Answer,
    responses=failures(),
    openapi_extra=bodies(json=OptimizedBody, form=SizedFields),
)
async def optimized(request: Request) -> Response:
    """Ask about an image with an explicit size and quality; `optimized` tells what the model got."""
    if is_form(request):
        fields, (picture,) = await form_body(request, SizedFields)
        return await _one(request, fields, picture, tells_size=True)
    body = await json_body(request, OptimizedBody)
    return await _one(request, body, decoded_upload(request, body.image_base64), tells_size=True)


@router.post(
    "/analyze/batch",
    response_class=StreamingResponse,
    responses={200: lines(BatchLine), **failures()},
    openapi_extra=bodies(json=BatchBody, form=Fields, most_files=MOST_IMAGES),
)
async def batch(request: Request) -> Response:
    """Ask about many images. The reply has one JSON line for each image, as soon as it is ready."""
    service, call = Service.of(request), Call.of(request.scope)
    if is_form(request):
        fields, pictures = await form_body(request, Fields, most_files=MOST_IMAGES)
    else:
        body = await json_body(request, BatchBody)
        fields, pictures = body, [_of_batch(request, image, n) for n, image in enumerate(body.images, 1)]
    call.prompt = fields.prompt or ""
    served = service.models.named(fields.model, call.key)
    question = await served.question(fields.asked(), call.scope)
    return BatchReply(served, question, pictures, call)


async def _one(request: Request, fields: Fields, picture: Upload, *, tells_size: bool = False) -> Response:
    """The reply to a question about one image."""
    service, call = Service.of(request), Call.of(request.scope)
    call.prompt = fields.prompt or ""
    served = service.models.named(fields.model, call.key)
    question = await served.question(fields.asked(), call.scope)
    result = await answered(served, [picture.data], question, picture.name, call)
    note(result, call)
    more: dict[str, Any] = {}
    if tells_size:
        facts = result.image
        more["optimized"] = {
            "width": facts.sent_width,
            "height": facts.sent_height,
            "bytes": facts.sent_bytes,
        }
    return reply(result, call, **more)


def _of_batch(request: Request, image: str | BatchImage, number: int) -> Upload:
    """The image at this position of a batch, from 1; without an id, the position is its id."""
    if isinstance(image, str):
        return decoded_upload(request, image, f"images.{number - 1}", str(number))
    return decoded_upload(
        request, image.image_base64, f"images.{number - 1}.image_base64", image.id or str(number)
    )
