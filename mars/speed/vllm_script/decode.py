"""Decode prompts in vLLM, whenever a line on standard input asks for it, and say what it took.

    python decode.py ENGINE.json

Runs with the Python of an environment that has vLLM, and needs nothing of this project there.
ENGINE.json holds what to decode and how: ``prompts`` (token ids), ``eos``, ``max_new_tokens``, and
under ``engine`` the arguments of ``vllm.LLM``. The first line that is written says which versions
these are; each line read is answered by one pass over the prompts, one after the other: the tokens
of each, up to and including EOS, the forwards of the model that took, and seconds of wall clock.
"""

import json
import os
import sys
import time
from importlib import metadata

DRAFTS = "vllm:spec_decode_num_drafts"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens"


def counted(llm):
    """How many drafts were checked so far, and how many tokens of them accepted; 0 without any."""
    found = {metric.name: getattr(metric, "value", 0) for metric in llm.get_metrics()}
    return found.get(DRAFTS, 0), found.get(ACCEPTED, 0)


def decode(llm, prompt, greedy):
    """The tokens that follow a prompt, and the forwards that took.

    That of the prompt gives a token, and each that checks a draft gives one beside those accepted,
    of which the last draft may have some beyond EOS; without a draft, each token is a forward.
    """
    before = counted(llm)
    (done,) = llm.generate([{"prompt_token_ids": prompt}], greedy, use_tqdm=False)
    tokens = list(done.outputs[0].token_ids)
    drafts, accepted = (now - then for now, then in zip(counted(llm), before, strict=True))
    return tokens, max(1 + drafts, len(tokens) - accepted)


def main():
    # vLLM writes to standard output: what comes from here gets a way of its own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import vllm

    with open(sys.argv[1]) as file:
        job = json.load(file)
    llm = vllm.LLM(**job["engine"])
    # Said here, or vLLM would take penalties from the checkpoint's generation config.
    greedy = vllm.SamplingParams(
        temperature=0, max_tokens=job["max_new_tokens"], stop_token_ids=job["eos"], detokenize=False
    )
    installed = {"torch": metadata.version("torch"), "vllm": vllm.__version__}
    print(json.dumps(installed), file=answers)
    for _ in sys.stdin:
        start = time.perf_counter()
        done = [decode(llm, prompt, greedy) for prompt in job["prompts"]]
        seconds = time.perf_counter() - start
        tokens, forwards = zip(*done, strict=True)
        passed = {"tokens": tokens, "forwards": forwards, "seconds": seconds}
        print(json.dumps(passed), file=answers)


if __name__ == "__main__":  # vLLM starts processes that import this file
    main()
