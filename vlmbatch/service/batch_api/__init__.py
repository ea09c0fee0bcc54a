"""The Files API and the Batch API of OpenAI's form, over the job queue."""
