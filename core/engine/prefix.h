/* prefix.h: what has been read before is not read again. Whole blocks of keys and values that a sequence has filled are remembered by
 * what made them: the tokens from the beginning on, and, for each layer, what edits at and below that layer did at those positions.
 * A later sequence that begins with the same tokens under the same edits shares the blocks and begins behind them: a chat's next turn, the
 * same prompt once more, the same instructions in front of every question.
 *
 * Keys and values are those that the sequence would have made itself, bit for bit wherever the backend's bits do not depend on how a
 * prompt is cut into steps (ops.h). What has no name (edit_list_digest) is not remembered, nor what follows it.
 *
 * MEMORY is that of the pool, as far as nobody else wants it (kv.h: kept blocks), and some 400 bytes for 64 remembered
 * positions. A cache owes nothing: where memory for names is short, nothing is remembered. Worker only. */
#ifndef STEERD_CORE_ENGINE_PREFIX_H
#define STEERD_CORE_ENGINE_PREFIX_H

#include <stdint.h>

#include "core/base/error.h"
#include "core/engine/kv.h"

struct prefixes;
struct prefix_cursor; /* how far a sequence is named */
struct sequence;
struct engine_task;

/* Of a pool's blocks, which it asks to be told about (kv_pool_tell). Freed before the pool. */
struct prefixes *prefixes_new(struct kv_pool *kv, int32_t n_layer, struct error *error) MUST_CHECK;
void prefixes_free(struct prefixes *prefixes); /* NULL is fine; no cursor may be left */

/* Where the sequences of a task that is not IN TURN begin: shares remembered blocks and sets `done`. Before any block is taken for
 * the task. Followers go on with their leader where that is less to compute than beginning by themselves, else they leave it. The
 * positions that need not be read, over all sequences. */
int64_t prefix_begin(struct prefixes *prefixes, struct engine_task *task);

/* Remembers the whole blocks that the sequence, which follows nobody, has filled. */
void prefix_remember(struct prefixes *prefixes, struct sequence *sequence);

void prefix_leave(struct prefixes *prefixes, struct sequence *sequence); /* its cursor goes; the blocks stay remembered */

#endif
