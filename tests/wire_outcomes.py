"""The expected outcome of each recorded reply in tests/wire, by the names of the replies."""

from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FailureKind,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
)

Outcome = tuple[type[BackendError], FailureKind] | None

OK: Outcome = None
AUTH: Outcome = (FatalBackendError, "auth")
BAD_CONFIG: Outcome = (FatalBackendError, "bad_config")
BAD_RESPONSE: Outcome = (TransientError, "bad_response")
BUSY: Outcome = (UnavailableError, "busy")
CONTEXT: Outcome = (BadAnswerError, "context")
CRASH: Outcome = (TransientError, "crash")
DOWN: Outcome = (UnavailableError, "down")
EMPTY: Outcome = (BadAnswerError, "empty")
NO_MODEL: Outcome = (FatalBackendError, "model_not_found")
NO_VISION: Outcome = (FatalBackendError, "no_vision")
REJECTED: Outcome = (RejectedError, "rejected")
SERVER_ERROR: Outcome = (TransientError, "server_error")
TOO_LARGE: Outcome = (RejectedError, "too_large")
WRONG_URL: Outcome = (FatalBackendError, "wrong_url")
TRUNCATED: Outcome = (BadAnswerError, "truncated")

RECORDED: dict[str, tuple[tuple[Outcome, str], ...]] = {
    "ollama": (
        (
            TRUNCATED,
            "after_client_disconnect_next_request after_runner_killed_next_request busy_cold_burst_1 "
            "busy_cold_burst_3 busy_other_model_0 busy_other_model_1 busy_warm_burst_0 busy_warm_burst_1 "
            "busy_warm_burst_2 busy_warm_burst_3 busy_warm_burst_4 busy_warm_burst_5 chat_bad_role "
            "chat_empty_prompt_content chat_empty_prompt_with_image chat_format_empty_string "
            "chat_format_json_tiny-vision chat_format_null chat_format_schema_truncated "
            "chat_image_small_ctx chat_images_empty_list chat_images_null chat_img_bmp chat_img_gif "
            "chat_img_gif_animated chat_img_gif_truncated chat_img_jpeg chat_img_jpeg_6000x4000 "
            "chat_img_jpeg_cmyk chat_img_jpeg_gray chat_img_jpeg_progressive chat_img_jpeg_truncated_half "
            "chat_img_png chat_img_png_1x1 chat_img_png_1x4000 chat_img_png_badcrc chat_img_png_gray "
            "chat_img_png_palette chat_img_png_rgba chat_img_ppm chat_img_tga chat_img_webp_alpha "
            "chat_img_webp_lossless chat_img_webp_lossy chat_logprobs chat_think_false chat_two_images "
            "chat_unknown_option chat_vision_nostream conc_diff_1_jpeg conc_diff_2_gif "
            "conc_diff_3_png_gray conc_diff_4_webp_lossy conc_diff_5_bmp conc_diff_6_jpeg_gray "
            "keep_alive_0 keep_alive_minus1 native_after_two_images_first_again native_chat_vision "
            "native_empty_content_image native_img_gif native_img_webp_lossy native_system_and_image "
            "native_two_images num_ctx_changed_reload seq2_two_images v1_chat_text v1_chat_vision "
            "v1_chat_vision_mime_mismatch v1_chat_vision_string_image_url v1_chat_vision_webp",
        ),
        (
            BUSY,
            "busy_cold_burst_0 busy_cold_burst_2 busy_cold_burst_4 busy_cold_burst_5 busy_other_model_2 "
            "busy_other_model_3 busy_v1_503",
        ),
        (
            WRONG_URL,
            "chat_bad_base64 chat_content_list chat_data_url_in_images chat_get_method chat_images_string "
            "unknown_path v1_chat_vision_bad_base64 v1_chat_vision_gif_mime v1_chat_vision_http_url "
            "v1_chat_vision_plain_base64_url",
        ),
        (
            REJECTED,
            "chat_bad_json chat_empty_body chat_image_and_corrupt chat_img_avif chat_img_empty "
            "chat_img_ico chat_img_jpeg2000 chat_img_jpeg_header_only chat_img_mp3_sync_bytes "
            "chat_img_pdf_bytes chat_img_png_truncated_half chat_img_random_bytes "
            "chat_img_stream_random_bytes chat_img_stream_webp_truncated chat_img_svg chat_img_text_bytes "
            "chat_img_tiff chat_img_webp_animated chat_img_webp_truncated native_img_empty "
            "native_img_mp3_sync_bytes native_img_random_bytes native_img_random_bytes_stream "
            "native_img_tiff native_img_webp_truncated native_img_webp_truncated_stream v1_bad_json "
            "v1_chat_empty_messages v1_chat_vision_corrupt",
        ),
        (
            BAD_CONFIG,
            "chat_bad_option_type chat_format_bad_schema chat_format_bad_string chat_keep_alive_bad "
            "chat_think_level chat_think_true_unsupported chat_tools_unsupported",
        ),
        (
            OK,
            "chat_done_reason_stop_seq chat_format_json_smollm2-text chat_format_schema_smollm2-text "
            "chat_format_schema_tiny-vision chat_img_png_16bit chat_text_nostream conc_diff_7_png_16bit "
            "native_bad_role native_format_schema ps_after_keep_alive_0 ps_after_keep_alive_minus1 "
            "ps_after_num_ctx ps_empty ps_loaded ps_two_loaded root_get root_head "
            "seq1_image_in_earlier_turn_fresh show_text show_vision tags tags_empty v1_chat_json_object "
            "v1_chat_json_schema v1_models version",
        ),
        (
            BAD_RESPONSE,
            "chat_empty_messages chat_empty_messages_unload chat_no_messages_key",
        ),
        (
            SERVER_ERROR,
            "chat_image_in_earlier_turn conc_diff_0_png seq3_image_in_earlier_turn_after_two_images "
            "seq4_same_again seq5_single_image",
        ),
        (
            NO_VISION,
            "chat_image_to_text_only_model chat_image_to_text_only_model_stream "
            "native_image_to_text_only_model v1_chat_image_to_text_only",
        ),
        (
            CONTEXT,
            "chat_long_prompt_truncate_false",
        ),
        (
            EMPTY,
            "chat_long_prompt_truncated",
        ),
        (
            NO_MODEL,
            "chat_no_model chat_unknown_model chat_unknown_model_stream show_unknown v1_chat_unknown_model",
        ),
        (
            CRASH,
            "midstream_runner_killed_nostream",
        ),
        (
            DOWN,
            "runner_crash_at_load_nostream runner_crash_at_load_stream",
        ),
    ),
    "vllm": (
        (
            CRASH,
            "worker-killed-in-flight worker-killed-after",
        ),
        (
            DOWN,
            "worker-killed-health",
        ),
        (
            TRUNCATED,
            "assistant-prefill auth-header-ignored err-content-empty-list err-prompt-plus-max err-role "
            "file-ok-quoted file-ok guided_choice-legacy guided_json-legacy img-1x1 img-mime-empty "
            "img-mime-octet imgs-2 imgs-4 json_object json_schema-length logprobs n-2 no-model "
            "ok-img-4000x3000 ok-img-bmp ok-img-detail ok-img-gif ok-img-mime-mismatch ok-img-modes-CMYK "
            "ok-img-modes-L ok-img-modes-RGBA ok-img-png ok-img-tiff ok-img-webp ok-max_completion_tokens "
            "ok-text seed-a seed-b unknown-field",
        ),
        (
            REJECTED,
            "body-40MB-image err-b64-empty err-b64-garbage err-b64-truncated-pad err-empty-messages "
            "err-img-http-404 err-img-scheme-ftp err-img-svg err-img-text-bytes err-img-truncated "
            "err-img-url-empty img-aspect-300 img-data-nobase64-token logprobs-top25 "
            "stream-err-image tools-none",
        ),
        (
            WRONG_URL,
            "err-bad-json err-content-null err-content-type err-empty-body err-no-messages err-part-type "
            "get-404 get-model-by-id get-wrong-method img-type-input_image "
            "img-url-as-string no-content-type",
        ),
        (
            SERVER_ERROR,
            "err-img-http-refused",
        ),
        (
            CONTEXT,
            "err-imgs-too-long err-prompt-too-long",
        ),
        (
            BAD_CONFIG,
            "err-json_schema-bad-type err-json_schema-badref err-json_schema-missing "
            "err-json_schema-not-dict err-max_tokens-0 err-max_tokens-neg err-max_tokens-too-big "
            "err-response_format-type err-temperature err-top_p imgs-5 json_schema-unsupported-kw "
            "file-missing file-outside file-traversal mm_processor_kwargs",
        ),
        (
            NO_MODEL,
            "err-unknown-model stream-err-model",
        ),
        (
            OK,
            "get-health get-models get-version json_schema-T1-seed json_schema-free-string "
            "json_schema-maxlen json_schema-ok ok-img-jpeg ok-no-max_tokens stop "
            "structured_outputs-choice",
        ),
        (
            TOO_LARGE,
            "img-bomb-400MP",
        ),
        (
            EMPTY,
            "role-developer",
        ),
    ),
    "llama_cpp": (
        (
            OK,
            "auth_health format_bmp format_gif format_ppm health image_ok json_object json_schema models "
            "props raw_base64_no_prefix slots text_first_order textonly_models textonly_props "
            "truncated_jpeg with_system",
        ),
        (
            AUTH,
            "auth_missing auth_wrong",
        ),
        (
            TRUNCATED,
            "auth_ok big_png ctx_hit_during_generation image_jpeg_ok image_ok_logprobs "
            "max_tokens_1_length textonly_ok unknown_model",
        ),
        (
            WRONG_URL,
            "bad_content_type bad_data_uri not_found ollama_api_show ollama_api_tags wrong_method",
        ),
        (
            REJECTED,
            "bad_json corrupt_not_image corrupt_truncated_png empty_image format_tiff format_webp "
            "invalid_base64 no_messages stream_error",
        ),
        (
            CONTEXT,
            "ctx_exceeded image_ctx_exceeded",
        ),
        (
            SERVER_ERROR,
            "http_url_unreachable",
        ),
        (
            BAD_CONFIG,
            "file_url json_schema_bad max_tokens_neg response_format_bad_type",
        ),
        (
            DOWN,
            "loading_health loading_v1_models loading_v1_chat_completions",
        ),
        (
            NO_VISION,
            "textonly_image",
        ),
    ),
}
