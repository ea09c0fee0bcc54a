"""Answers in which a model says that it cannot see its picture, and answers that only sound like it."""

import pytest

from vlmbatch.backends.classify.blindness import admits_blindness


@pytest.mark.parametrize(
    "text",
    [
        "I cannot see any image.",
        "I'm sorry, but I cannot see any image.",
        "I'm unable to view images. Could you describe it?",
        "I\u2019m not able to see or analyze images directly.",
        "As a text-based model, I have no access to pictures.",
        "I am a text-based AI and do not have the ability to process visual information.",
        "I'm a text-only language model.",
        "I don't see an image. You mentioned [img-0]",
        "You mentioned [img-0], but nothing else.",
        "It seems that you mean an image, but I can't see or access images directly. Could you describe it?",
        "I am sorry, but I do not have access to the image you are referring to. Please upload the image.",
        "Please provide the image so that I can describe it.",
        "Please provide the image.",
        "Sure! Please upload the photo you'd like me to look at.",
        "I currently can't view the picture you sent.",
        "It looks like no image was attached.",
        "There is no image in your message.",
        "There was no picture provided, so I cannot describe it.",
        "You haven't attached an image yet.",
        "I don't have the ability to see images.",
        "I do not currently have access to any image.",
        "I can only process text.",
        "This is a base64 encoded string.",
        "It looks like you've pasted a base64-encoded JPEG.",
        '{"caption": "I cannot see any image"}',
        '{"caption": "As a text-based AI model, I cannot look at pictures", "tags": []}',
        "I cannot view or analyze images.",
        "I'm sorry, I can't actually see the photo, but I can help with a description.",
        "I didn't receive any image.",
        "I can't view images or files directly.",
        "I can't see image content.",
    ],
)
def test_a_model_that_says_so(text: str) -> None:
    """The model's own statement that it sees no picture is recognised in its usual wordings."""
    assert admits_blindness(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Orange",
        "A man with a white cane; he is blind and cannot see the picture in front of him.",
        "The woman is unable to see images because of the blindfold.",
        "A grey placeholder with the words no image available.",
        "No image available",
        "no photo",
        'A sign that says "no image available".',
        'The screenshot shows a chat: "I cannot see any image."',
        "The sign reads \u201cI'm unable to view images\u201d in large letters.",
        'A chat window with the answer "As a text-based model, I cannot see images, so please describe',
        "I cannot see the image clearly, but it seems to be a dog.",
        "I can't see the picture in detail; there is a house.",
        "I do not see any pictures on the wall of this room.",
        "I don't see any image of a cat on this page.",
        "I cannot see any people.",
        "I can see an image of a lake.",
        "The logo is drawn as a text-based design in red.",
        "A form with a button: Upload a photo.",
        "An article about how blind users, who cannot see images, use alt text.",
        "The image was provided by the museum. A vase with flowers.",
        "A terminal window with base64 text.",
        "There are no pictures on the shelf.",
        "I don't see any photos or pictures in this room.",
        "I don't see any pictures or posters on the wall.",
        "I don't find the picture offensive.",
        "A long description of a street. " * 20 + "I cannot see any image.",
    ],
)
def test_an_answer_that_only_sounds_like_it(text: str) -> None:
    """Text from a picture, people who cannot see, and doubts about a detail are not such a statement."""
    assert not admits_blindness(text)
