#!/usr/bin/env python3
"""Takes the document marks out of a training text, so that statistics see prose only.
usage: cut_documents.py TEXT OUT
Documents in TEXT are separated by a line holding only <|endoftext|>; in OUT an empty line stands between them. The statistics
job reads such a mark as the characters it is made of, which no model was trained on."""
import sys

MARK = '<|endoftext|>'

with open(sys.argv[1], encoding='utf-8') as source:
    documents = [part.strip('\n') for part in source.read().split('\n' + MARK + '\n')]
with open(sys.argv[2], 'w', encoding='utf-8') as out:
    out.write('\n\n'.join(d for d in documents if d and d != MARK) + '\n')
