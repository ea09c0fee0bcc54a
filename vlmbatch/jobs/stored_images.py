"""The source of a worker: images in the store, which jobs name by their keys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlmbatch.images import FileStamp, ImageRef, SourceImage
from vlmbatch.jobs.job import ImageJob
from vlmbatch.jobs.store import Store
from vlmbatch.jobs.store_keys import IN_PLACE
from vlmbatch.sources.given import GivenImages


@dataclass(slots=True, kw_only=True)
class StoredImage(ImageRef):
    """An image in the store; `uri` is empty, `key` is its key, and `file_stamp` that of the user's file."""

    key: str
    file_stamp: FileStamp | None


class StoredImages(GivenImages):
    """Reads the images of jobs."""

    def __init__(self, store: Store, max_bytes: int) -> None:
        """`max_bytes` is the largest size of an image file."""
        super().__init__(max_bytes)
        self._store = store
        self._most = max_bytes

    def read(self, ref: ImageRef) -> SourceImage:
        """The image, with the stamp of the user's file; see protocols.Source.

        Raises:
            ImageError: it is gone, or cannot be used.
            StoreAwayError: the store cannot be reached.
        """
        assert isinstance(ref, StoredImage), "made by references_of()"
        image = self._store.read_image(ref.key, max_bytes=self._most)
        if ref.key.startswith(f"{IN_PLACE}/"):  # it may have changed since its job was made
            return image
        return replace(image, stamp=ref.file_stamp)

    def stamp(self, ref: ImageRef) -> FileStamp | None:
        """The stamp of the user's file; None for an image that came over HTTP."""
        assert isinstance(ref, StoredImage), "made by references_of()"
        return ref.file_stamp


def references_of(job: ImageJob) -> Sequence[StoredImage]:
    """References to the images of a job."""
    return [
        StoredImage(
            id=job.image_id,
            uri="",
            key=image.key,
            file_stamp=None
            if image.bytes is None or image.mtime is None
            else FileStamp(image.bytes, image.mtime),
        )
        for image in job.images
    ]
