/* graph.c: steps that were recorded once and are repeated by one call.
 *
 * A graph belongs to a list of ops of one plan and a shape. Lists are told apart by their number and place, and those without a number
 * by content: instrumented lists are made anew for each step. Content alone would do for no other plan's: ops name memory by handles,
 * which come again when memory is given back, and what is recorded holds addresses. The
 * first step of a kind is launched op by op, which lets scratch memory grow; the second is recorded; from then on it is
 * replayed, until its place is needed for another. What is replayed reads the step from the tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/math/cuda/cuda.h"

#define MAX_GRAPHS 64
#define LEAST_OPS 8     /* shorter lists are not worth a graph */
#define MOST_ROWS 256   /* larger steps compute long enough to hide their launches */

struct recorded {
  struct op *list; /* a copy */
  uint64_t plan;   /* step.plan */
  uint64_t number; /* step.list, and where the list stood then */
  const struct op *place;
  size_t count;
  struct shape shape;
  cudaGraphExec_t exec; /* NULL: seen once */
  unsigned long used;   /* when; 0: empty */
};

#define MOST_FAILURES 3 /* then recording is given up */

struct graphs {
  struct recorded kept[MAX_GRAPHS];
  int failures; /* to record */
  struct recorded *last; /* used by the last step, and most likely by this one */
  unsigned long clock;
};

struct graphs *graphs_new(struct error *error) {
  struct graphs *graphs = calloc(1, sizeof *graphs);
  if (!graphs) error_memory(error, sizeof *graphs);
  return graphs;
}

static void forget(struct recorded *r) {
  if (r->exec) cudaGraphExecDestroy(r->exec);
  free(r->list);
  memset(r, 0, sizeof *r);
}

void graphs_drop(struct cuda_backend *cuda) {
  for (int i = 0; cuda->graphs && i < MAX_GRAPHS; i++) forget(&cuda->graphs->kept[i]);
}

void graphs_free(struct cuda_backend *cuda) {
  graphs_drop(cuda);
  free(cuda->graphs);
}

static bool worth_it(size_t count, const struct shape *shape) {
  return count >= LEAST_OPS && shape->bucket.rows <= MOST_ROWS && shape->bucket.logit_rows <= MOST_ROWS;
}

static bool can_be_recorded(const struct op *list, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (list[i].code == OP_PATTERN) return false;
  return true;
}

static bool is_of(const struct recorded *r, const struct op *list, size_t count, const struct step *step, const struct shape *shape) {
  if (!r->used || r->plan != step->plan || r->count != count || memcmp(&r->shape, shape, sizeof *shape) != 0) return false;
  if (r->number && r->number == step->list) return r->place == list;
  return memcmp(r->list, list, count * sizeof *list) == 0;
}

static struct recorded *find(struct graphs *graphs, const struct op *list, size_t count, const struct step *step,
                             const struct shape *shape) {
  if (graphs->last && is_of(graphs->last, list, count, step, shape)) return graphs->last;
  for (int i = 0; i < MAX_GRAPHS; i++)
    if (is_of(&graphs->kept[i], list, count, step, shape)) return graphs->last = &graphs->kept[i];
  return NULL;
}

static struct recorded *longest_unused(struct graphs *graphs) {
  struct recorded *oldest = graphs->kept;
  for (int i = 1; i < MAX_GRAPHS; i++)
    if (graphs->kept[i].used < oldest->used) oldest = &graphs->kept[i];
  return oldest;
}

static int note(struct graphs *graphs, const struct op *list, size_t count, const struct step *step, const struct shape *shape,
                struct error *error) {
  struct recorded *r = longest_unused(graphs);
  forget(r);
  r->list = malloc(count * sizeof *list);
  if (!r->list) return error_memory(error, count * sizeof *list);
  memcpy(r->list, list, count * sizeof *list);
  r->plan = step->plan;
  r->number = step->list;
  r->place = list;
  r->count = count;
  r->shape = *shape;
  r->used = ++graphs->clock;
  return 0;
}

/* Ends the recording in any case: a stream that records cannot be used. */
static int record(struct cuda_backend *cuda, const struct step *step, struct recorded *r, struct error *error) {
  cudaGraph_t graph = NULL;
  if (cuda_check(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal), "recording a step", error) != 0)
    return -1;
  cuda->capturing = true;
  int failed = cuda_launch_list(cuda, r->list, r->count, step, &r->shape, error);
  cudaError_t ended = cudaStreamEndCapture(cuda->stream, &graph);
  cuda->capturing = false;
  if (!failed) failed = cuda_check(cuda, ended, "recording a step", error);
  if (!failed) failed = cuda_check(cuda, cudaGraphInstantiate(&r->exec, graph, 0), "recording a step", error);
  if (failed) r->exec = NULL;
  if (graph) cudaGraphDestroy(graph);
  return failed;
}

/* A step that cannot be recorded is launched as it is: slower, and as right. That is said, for it should not be. -1: the device is lost. */
static int go_without(struct cuda_backend *cuda, struct recorded *r, const struct error *why, struct error *error) {
  forget(r);
  if (atomic_load(&cuda->lost)) return error_set(error, why->code, "%s", why->text);
  bool last = ++cuda->graphs->failures == MOST_FAILURES;
  fprintf(stderr, "steerd-cuda: a step could not be recorded, and is launched op by op%s: %s\n", last ? ", as all are from now on" : "",
          why->text);
  return 0;
}

int graphs_run(struct cuda_backend *cuda, const struct op *list, size_t count, const struct step *step,
               const struct shape *shape, struct error *error) {
  struct graphs *graphs = cuda->graphs;
  struct error why = ERROR_INIT;
  if (cuda->watch || graphs->failures == MOST_FAILURES || !worth_it(count, shape)) return 0;
  struct recorded *r = find(graphs, list, count, step, shape);
  if (!r) return can_be_recorded(list, count) ? note(graphs, list, count, step, shape, error) : 0;
  if (!r->exec && record(cuda, step, r, &why) != 0) return go_without(cuda, r, &why, error);
  r->used = ++graphs->clock;
  return cuda_check(cuda, cudaGraphLaunch(r->exec, cuda->stream), "repeating a step", error) != 0 ? -1 : 1;
}
