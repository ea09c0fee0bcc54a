"""The options that other tools have, and what to write here instead."""

_SAME_COMMAND = "leave it out: the same command with the same --output continues where the last run ended"
_JSON_ANSWERS = "--schema FILE makes the answers JSON; --format jsonl prints records"
_NOT_AN_OPTION = "name the folder without an option: vlmbatch run FOLDER"
_ALWAYS_WALKED = "leave it out: vlmbatch always searches the subfolders, too"
_TEXT_FILES = "the script in docs/captions.md writes a text file beside each image, with a trigger word"

FOREIGN_FLAGS = {
    **dict.fromkeys(
        ("--workers", "--num-workers", "--jobs", "-j", "--threads", "--parallel", "--batch-size", "-w"),
        "--concurrency",
    ),
    **dict.fromkeys(
        ("--num-parallel", "--max-workers", "--max-concurrency", "--parallelism"), "--concurrency"
    ),
    **dict.fromkeys(("--output-format", "--out-format"), "--format"),
    **dict.fromkeys(
        ("--input", "--inputs", "-i", "--dir", "--folder", "--images", "--path", "-d"), _NOT_AN_OPTION
    ),
    **dict.fromkeys(
        ("--image", "--images-dir", "--input-dir", "--image-dir", "-f", "--file"), _NOT_AN_OPTION
    ),
    **dict.fromkeys(
        ("--url", "--endpoint", "--host", "--api-base", "--server", "--api-url", "-u"), "--base-url"
    ),
    **dict.fromkeys(("--openai-api-base", "--ollama-host", "--port"), "--base-url"),
    **dict.fromkeys(
        ("--out", "--output-file", "--output-dir", "--output-path", "--save", "--out-file"), "--output"
    ),
    **dict.fromkeys(("--resume", "--continue", "--skip-existing", "--no-clobber"), _SAME_COMMAND),
    **dict.fromkeys(("--recursive", "-r", "-R"), _ALWAYS_WALKED),
    **dict.fromkeys(("--model-name", "--model-id", "--model-path"), "--model"),
    **dict.fromkeys(("--engine", "--provider", "--api"), "--backend"),
    **dict.fromkeys(("--system-prompt", "--system-message", "-s"), "--system"),
    **dict.fromkeys(("--question", "--query", "--text", "--instruction", "--message"), "--prompt"),
    **dict.fromkeys(("--prompt-path", "--prompts"), "--prompt-file"),
    **dict.fromkeys(
        ("--max-new-tokens", "--max-completion-tokens", "--num-predict", "--n-predict"), "--max-tokens"
    ),
    **dict.fromkeys(("--max-length", "--tokens"), "--max-tokens"),
    **dict.fromkeys(
        ("--image-size", "--resize", "--size", "--max-side", "--max-dim", "--resolution"), "--max-size"
    ),
    **dict.fromkeys(("--max-width", "--max-height"), "--max-size"),
    **dict.fromkeys(("--token", "--key", "--openai-api-key"), "--api-key"),
    **dict.fromkeys(
        ("--context", "--context-length", "--ctx-size", "--max-model-len", "--n-ctx"), "--num-ctx"
    ),
    **dict.fromkeys(("--json-schema", "--response-format"), "--schema"),
    **dict.fromkeys(("--json", "--jsonl"), _JSON_ANSWERS),
    **dict.fromkeys(
        ("--csv", "--tsv"), "records are JSON lines; write --output FILE.jsonl and convert that file with jq"
    ),
    **dict.fromkeys(
        ("--trigger", "--trigger-word", "--prefix", "--caption-prefix", "--caption-extension", "--txt"),
        _TEXT_FILES,
    ),
    **dict.fromkeys(("--force", "--restart", "--clobber"), "--overwrite"),
    **dict.fromkeys(("--retry", "--max-retries", "--retry-count"), "--retries"),
    **dict.fromkeys(("--request-timeout", "--time-limit"), "--timeout"),
    **dict.fromkeys(("--rate-limit", "--requests-per-minute", "--rate"), "--rpm"),
    **dict.fromkeys(("--max-images", "--num-images", "--max-files", "--first", "-n", "--count"), "--limit"),
    **dict.fromkeys(("--glob", "--pattern", "--extensions", "--ext"), "--include"),
    **dict.fromkeys(("--ignore", "--skip"), "--exclude"),
    **dict.fromkeys(("--budget", "--max-budget"), "--max-cost"),
    **dict.fromkeys(("--silent",), "--quiet"),
    **dict.fromkeys(("--debug", "--log-level"), "--verbose"),
    **dict.fromkeys(("--no-verify", "--no-verify-ssl", "--no-check-certificate", "-k"), "--insecure"),
    **dict.fromkeys(("--headers", "-H"), "--header"),
    **dict.fromkeys(("--temp", "-t"), "--temperature"),
    **dict.fromkeys(("--settings", "--config-file"), "--config"),
    **dict.fromkeys(("--jpeg-quality",), "--quality"),
    **dict.fromkeys(("--test", "--simulate"), "--dry-run"),
    **dict.fromkeys(
        ("--top-p", "--top-k", "--min-p", "--repeat-penalty", "--repetition-penalty", "--stop"),
        "write --option NAME=VALUE for Ollama, or --extra-body '{\"NAME\": VALUE}' for other servers",
    ),
}
"""For each flag the flag of vlmbatch, or a sentence that says what to write."""
