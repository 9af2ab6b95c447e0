/* kv.h: memory for keys and values of one model: a pool of blocks, each holding one layer's keys and values of
 * KV_BLOCK positions for all KV heads. A block may be shared by several sequences (a common prefix) and goes
 * back to the pool with its last owner. One that is KEPT counts as free from then on, but what is in it stays until no other
 * block is left; of those the one dropped longest ago goes first. Worker only, except kv_pool_blocks_free. */
#ifndef STEERD_CORE_ENGINE_KV_H
#define STEERD_CORE_ENGINE_KV_H

#include "core/math/ops.h"
#include "core/model/model.h"

struct kv_pool;

/* bytes: how much memory the pool may take. It may be less than a full context, which then is refused request by request;
 * ERROR_LIMIT when not even a short text has room. */
struct kv_pool *kv_pool_new(const struct model *model, size_t bytes, struct error *error) MUST_CHECK;
void kv_pool_free(struct kv_pool *pool); /* NULL is fine */

/* Bytes that one sequence of `positions` needs in all layers. */
size_t kv_sequence_bytes(const struct model *model, int64_t positions);

/* How large a pool should be when nobody says: eight contexts, from 64 MiB to 1 GiB, more where one context needs it, but
 * never more than `room` (where that holds a short text). */
size_t kv_pool_choose(const struct model *model, size_t room);

/* Positions that one sequence can have when it is alone, in all layers. */
int64_t kv_pool_positions(const struct kv_pool *pool);

struct span kv_pool_span(const struct kv_pool *pool);
size_t kv_pool_bytes(const struct kv_pool *pool);
int32_t kv_pool_blocks(const struct kv_pool *pool);
int32_t kv_pool_blocks_free(const struct kv_pool *pool); /* any thread: a recent value */

/* One block with one owner, or -1 when the pool is empty. */
int32_t kv_block_take(struct kv_pool *pool);
void kv_block_share(struct kv_pool *pool, int32_t block); /* one owner more; of a kept one the first again */
void kv_block_drop(struct kv_pool *pool, int32_t block);  /* one owner less; -1 is fine */

/* An owned block is kept from now on. `taken` hears of each such block that is given to somebody else. */
void kv_block_keep(struct kv_pool *pool, int32_t block);
void kv_pool_tell(struct kv_pool *pool, void (*taken)(void *context, int32_t block), void *context);

/* Copies a whole block. */
int kv_block_copy(struct kv_pool *pool, int32_t to, int32_t from, struct error *error) MUST_CHECK;

#endif
