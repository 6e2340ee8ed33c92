# The parser of a vLLM that has a few options, in the place where vLLM has it.
import argparse


def make_arg_parser(parser):
    parser.add_argument("--model")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--quantization", choices=["awq", "gptq"])
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    parser.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    return parser
