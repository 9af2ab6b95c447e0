/* emulator.cpp: what core/math/cuda asks of CUDA's runtime, on the processor, for the tests (cuda_runtime.h).
 *
 * Owns streams, which put work off for as long as a device could, graphs, which are lists of recorded calls with their arguments,
 * launches, and failures that a test orders. Knows nothing of steerd. What a stream was asked for is done when somebody waits for
 * it, a part of it at other calls:
 * whoever changes locked memory too early, or reads it too early, gets wrong numbers as on a device. STEERD_EMULATOR_SEED=0
 * does everything at once. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "emulator.h"

using namespace emulated;

/* ---- ordered failures ------------------------------------------------------------------------------------- */

static std::mutex guard;
static long fail_in = -1; /* calls until the next one fails */
static cudaError_t fail_with = cudaSuccess;
static std::atomic<cudaError_t> sticky{cudaSuccess};
static std::atomic<unsigned long> losses; /* what was asked for before a loss is never done */
static std::atomic<long> n_calls, n_launches, n_replays, n_captures, n_waits, n_overlaps, n_nodes;
static thread_local cudaError_t last_error;

static bool is_sticky(cudaError_t error) { return error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure; }

cudaError_t emulated::say(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

cudaError_t emulated::called() {
  std::lock_guard<std::mutex> lock(guard);
  n_calls++;
  if (sticky != cudaSuccess) return say(sticky.load());
  if (fail_in < 0 || fail_in-- > 0) return cudaSuccess;
  if (is_sticky(fail_with)) sticky = fail_with, losses++;
  return say(fail_with);
}

/* A kernel that never ends, once the file is there that STEERD_EMULATED_HANG names: nothing comes to an end any more. */
bool emulated::hangs() {
  static const char *const file = getenv("STEERD_EMULATED_HANG");
  return file && access(file, F_OK) == 0;
}
/* In calls that wait for the device, as freeing memory does. */
void emulated::stand_still() {
  while (hangs()) usleep(10000);
}

/* For tests, by dlsym. The call after `calls` more fails; cudaSuccess mends everything. */
extern "C" void cuda_emulated_fail(long calls, int error) {
  std::lock_guard<std::mutex> lock(guard);
  fail_in = error ? calls : -1;
  fail_with = (cudaError_t)error;
  if (!error) sticky = cudaSuccess;
}
/* Calls, kernels run, graphs captured, graphs replayed so far; bytes in use; calls that waited for a stream or the device. */
extern "C" void cuda_emulated_counts(long out[6]) {
  out[0] = n_calls, out[1] = n_launches, out[2] = n_captures, out[3] = n_replays, out[4] = (long)memory_in_use(), out[5] = n_waits;
}
void emulated::count_launch() { n_launches++; }
/* Launches so far that may begin before their turn; nodes of the graph that was captured last. */
extern "C" void cuda_emulated_launches(long out[2]) { out[0] = n_overlaps, out[1] = n_nodes; }

/* Device 1 is of an older generation than device 0. */
static thread_local int current_device;
static int device_major(int device) { return device == 0 ? 9 : 8; }

/* ---- streams ----------------------------------------------------------------------------------------------------- */

/* A kernel, or whatever else. */
struct job {
  std::function<void()> work;
  std::shared_ptr<kernel_call> kernel;
};
typedef std::vector<job> list;
struct recording {
  list calls;
  bool spoilt;
  std::thread::id owner;
};
struct task {
  job what;
  unsigned long loss; /* how many there were when it was asked for */
  bool always;        /* done even so */
};
struct cuda_stream {
  std::deque<task> waiting;
  uint64_t asked, done;
  std::shared_ptr<recording> capture;
};
struct cuda_graph {
  list calls;
};
struct cuda_graph_exec {
  list calls;
};
struct cuda_event {
  bool timed, recorded;
  cudaStream_t stream;
  uint64_t at; /* done when so much of the stream is */
  std::shared_ptr<recording> capture;
  double seconds;
};

/* One device: one piece of work at a time, whoever asked for it. A thread may take it again while it has it. */
struct turns {
  std::recursive_mutex mutex;
  std::atomic<int> waiting;

  void lock() {
    if (mutex.try_lock()) return;
    waiting++;
    mutex.lock();
    waiting--;
  }
  void unlock() { mutex.unlock(); }
};
/* These are never destroyed: where a test fails, threads may still work with them while the program ends. */
static turns &device = *new turns();
static std::vector<cudaStream_t> &streams = *new std::vector<cudaStream_t>();
typedef std::lock_guard<turns> device_turn;
static thread_local std::shared_ptr<recording> own_capture; /* begun by this thread, which may not do what would wait */
static std::vector<std::shared_ptr<recording>> &global_captures = *new std::vector<std::shared_ptr<recording>>(); /* nor may any other */

/* For tests, by dlsym: called by a thread that records, in front of each call that is recorded; NULL: no more. */
static void (*when_recording)(void *);
static void *when_context;
extern "C" void cuda_emulated_recording(void (*call)(void *), void *context) { when_context = context, when_recording = call; }

cudaStream_t emulated::known_stream(cudaStream_t stream) {
  static thread_local cudaStream_t own;
  static cudaStream_t legacy;
  if (stream && stream != cudaStreamPerThread) return stream;
  if (stream && own) return own;
  device_turn turn(device);
  cudaStream_t *place = stream ? &own : &legacy;
  if (!*place) {
    *place = new cuda_stream();
    streams.push_back(*place);
  }
  return *place;
}

static void run_kernel(const kernel_call &call);

/* A kernel whose successor may begin early finds a block of it begun. */
static void do_one(cudaStream_t stream) {
  task next = std::move(stream->waiting.front());
  stream->waiting.pop_front();
  if (next.what.kernel && next.loss != losses) give_up(*next.what.kernel);
  if (next.loss == losses || next.always) {
    const kernel_call *after = stream->waiting.empty() ? nullptr : stream->waiting.front().what.kernel.get();
    if (next.what.kernel && after && after->overlaps && after != next.what.kernel.get() && below(2)) begin_early(*after);
    stream_turns(stream, next.what.kernel != nullptr);
    if (next.what.kernel) run_kernel(*next.what.kernel);
    else next.what.work();
  }
  stream->done++;
}
static void do_until(cudaStream_t stream, uint64_t at) {
  device_turn turn(device);
  while (stream->done < at && !stream->waiting.empty()) do_one(stream);
}
void emulated::do_all(cudaStream_t stream) {
  device_turn turn(device);
  n_waits++;
  while (!stream->waiting.empty()) do_one(stream);
}
void emulated::do_everything() {
  device_turn turn(device);
  n_waits++;
  for (cudaStream_t stream : streams) do_until(stream, stream->asked);
}

/* To measure what the host does in a step: calls are counted and nothing is done. Answers are made of what was there. */
static bool idle() {
  static const bool idle = getenv("STEERD_EMULATOR_IDLE") != nullptr;
  return idle;
}

static cudaError_t put_off(cudaStream_t which, job work, bool always) {
  cudaStream_t stream = known_stream(which);
  if (own_capture && when_recording) when_recording(when_context);
  device_turn turn(device);
  if (stream->capture) {
    if (stream->capture->owner != std::this_thread::get_id()) {
      fprintf(stderr, "emulated CUDA: work of another thread comes into what a thread records\n"); /* and would be repeated with it */
      abort();
    }
    if (stream->capture->spoilt) return say(cudaErrorStreamCaptureInvalidated);
    stream->capture->calls.push_back(std::move(work));
    return cudaSuccess;
  }
  if (idle() && !always) return cudaSuccess;
  if (!which) do_everything(); /* the legacy stream waits for the others */
  stream->waiting.push_back(task{std::move(work), losses, always});
  stream->asked++;
  if (in_order() || !which) do_until(stream, stream->asked);
  else if (!below(4)) { /* the device does not sleep */
    cudaStream_t some = streams[below((unsigned)streams.size())];
    for (unsigned n = below(4); n && !some->waiting.empty(); n--) do_one(some);
  }
  return cudaSuccess;
}

cudaError_t emulated::submit(cudaStream_t stream, std::function<void()> work) {
  return put_off(stream, job{std::move(work), nullptr}, false);
}
cudaError_t emulated::submit_always(cudaStream_t stream, std::function<void()> work) {
  return put_off(stream, job{std::move(work), nullptr}, true);
}
cudaError_t emulated::submit_kernel(cudaStream_t stream, kernel_call call) {
  return put_off(stream, job{nullptr, std::make_shared<kernel_call>(std::move(call))}, false);
}

/* A call that waits or would have to: forbidden to a thread that records, and the end of what it records. */
cudaError_t emulated::unsafe() {
  if (!own_capture) return unsafe_beside();
  own_capture->spoilt = true;
  return say(cudaErrorStreamCaptureUnsupported);
}
/* Threads are in the mode `global` where they say nothing else: what one of them records in that mode forbids the others the same. */
cudaError_t emulated::unsafe_beside() {
  device_turn turn(device);
  if (own_capture || global_captures.empty()) return cudaSuccess;
  for (auto &capture : global_captures) capture->spoilt = true;
  return say(cudaErrorStreamCaptureUnsupported);
}

cudaError_t emulated::unsafe_on(cudaStream_t stream) {
  device_turn turn(device);
  if (!stream->capture) return cudaSuccess;
  stream->capture->spoilt = true;
  return say(cudaErrorStreamCaptureUnsupported);
}

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
  CALLED();
  device_turn turn(device);
  *out = new cuda_stream();
  streams.push_back(*out);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  device_turn turn(device);
  do_all(stream);
  for (size_t i = 0; i < streams.size(); i++)
    if (streams[i] == stream) streams.erase(streams.begin() + (long)i--);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t which) {
  emulated::stand_still();
  cudaStream_t stream = known_stream(which);
  CALLED();
  cudaError_t error = unsafe_on(stream);
  if (error == cudaSuccess) do_all(stream);
  return error;
}
cudaError_t cudaDeviceSynchronize(void) {
  CALLED();
  UNSAFE_IN_CAPTURE();
  do_everything();
  return cudaSuccess;
}
}

/* Some of what waits is done: whether nothing does any more. */
static bool did_some(cudaStream_t stream) {
  device_turn turn(device);
  if (stream->capture) return true;
  for (unsigned n = 1 + below(8); !stream->waiting.empty() && (n || in_order()); n--) do_one(stream);
  return stream->waiting.empty();
}

extern "C" {

/* Once in a step: the place where tests of the whole server break the device, by making a file. */
cudaError_t cudaStreamQuery(cudaStream_t which) {
  if (emulated::hangs()) return cudaErrorNotReady;
  const char *file = getenv("STEERD_EMULATED_LOSS");
  if (file && access(file, F_OK) == 0) cuda_emulated_fail(0, cudaErrorIllegalAddress);
  if (sticky != cudaSuccess) return say(sticky.load()); /* at once: what waits on a stream of a lost device is over */
  cudaStream_t stream = known_stream(which);
  if (!did_some(stream)) {
    if (device.waiting) std::this_thread::yield(); /* a mutex knows no order: who asks again and again would keep others out */
    return cudaErrorNotReady;                      /* to ask again is not another call */
  }
  CALLED();
  n_waits++;
  return unsafe_on(stream);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

cudaError_t cudaStreamBeginCapture(cudaStream_t which, enum cudaStreamCaptureMode mode) {
  CALLED();
  if (!which) return say(cudaErrorStreamCaptureUnsupported);
  cudaStream_t stream = known_stream(which);
  device_turn turn(device);
  if (stream->capture) return say(cudaErrorInvalidValue);
  stream->capture = std::make_shared<recording>(recording{list(), false, std::this_thread::get_id()});
  if (mode != cudaStreamCaptureModeRelaxed) own_capture = stream->capture;
  if (mode == cudaStreamCaptureModeGlobal) global_captures.push_back(stream->capture);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t which, cudaGraph_t *out) {
  cudaError_t error = emulated::called(); /* a failed capture ends too */
  cudaStream_t stream = known_stream(which);
  device_turn turn(device);
  std::shared_ptr<recording> capture = stream->capture;
  *out = nullptr;
  if (!capture) return say(cudaErrorInvalidValue);
  for (cudaStream_t other : streams)
    if (other->capture == capture) other->capture = nullptr;
  stream->capture = own_capture = nullptr;
  global_captures.erase(std::remove(global_captures.begin(), global_captures.end(), capture), global_captures.end());
  if (error == cudaSuccess && capture->spoilt) error = say(cudaErrorStreamCaptureInvalidated);
  if (error == cudaSuccess) *out = new cuda_graph{capture->calls};
  n_captures += *out != nullptr;
  if (*out) n_nodes = (long)(*out)->calls.size();
  return error;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  CALLED();
  *out = new cuda_graph_exec{graph->calls};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  CALLED();
  n_replays++;
  if (idle()) return cudaSuccess;
  device_turn turn(device); /* what another thread asks for comes before or behind it */
  for (auto &work : exec->calls) {
    cudaError_t error = put_off(stream, work, false);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
  CALLED();
  *out = new cuda_event{!(flags & cudaEventDisableTiming), false, nullptr, 0, nullptr, 0};
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t which) {
  CALLED();
  cudaStream_t stream = known_stream(which);
  device_turn turn(device);
  event->capture = stream->capture;
  event->recorded = true;
  cudaError_t error = submit(which, [=]() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
  });
  event->stream = stream;
  event->at = stream->asked;
  return error;
}
static bool is_done(cudaEvent_t event) { return !event->recorded || event->stream->done >= event->at; }
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (emulated::hangs()) return cudaErrorNotReady;
  CALLED();
  UNSAFE_IN_CAPTURE();
  device_turn turn(device);
  if (event->capture) return say(cudaErrorCapturedEvent);
  if (!is_done(event) && below(2)) do_until(event->stream, event->stream->done + 1);
  return is_done(event) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CALLED();
  UNSAFE_IN_CAPTURE();
  device_turn turn(device);
  if (event->capture) return say(cudaErrorCapturedEvent);
  if (event->recorded) do_until(event->stream, event->at);
  return cudaSuccess;
}
/* An event that was recorded in a capture takes the stream into it. */
cudaError_t cudaStreamWaitEvent(cudaStream_t which, cudaEvent_t event, unsigned) {
  CALLED();
  device_turn turn(device);
  cudaStream_t stream = known_stream(which), other = event->stream;
  uint64_t at = event->at;
  if (!event->recorded) return cudaSuccess;
  if (event->capture) {
    stream->capture = event->capture;
    return cudaSuccess;
  }
  return submit(which, [=]() { do_until(other, at); });
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  CALLED();
  device_turn turn(device);
  if (!begin->timed || !end->timed || !begin->recorded || !end->recorded) return say(cudaErrorInvalidResourceHandle);
  if (!is_done(begin) || !is_done(end)) return cudaErrorNotReady;
  *milliseconds = (float)((end->seconds - begin->seconds) * 1e3);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  do_everything();
  delete event;
  return cudaSuccess;
}

} // extern "C"

/* ---- launches ------------------------------------------------------------------------------------------------------ */

static std::map<const void *, size_t> &allowed = *new std::map<const void *, size_t>(); /* dynamic shared memory, by kernel */

cudaError_t emulated::set_attribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  CALLED();
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return value < -1 || value > 100 ? say(cudaErrorInvalidValue) : cudaSuccess;
  if (value < 0 || (size_t)value > LARGEST_SHARED) return say(cudaErrorInvalidValue);
  std::lock_guard<std::mutex> lock(guard);
  allowed[kernel] = (size_t)value;
  return cudaSuccess;
}

static size_t allowed_shared(const void *kernel) {
  std::lock_guard<std::mutex> lock(guard);
  auto found = allowed.find(kernel);
  return found == allowed.end() || found->second < STATIC_SHARED ? STATIC_SHARED : found->second;
}

/* STEERD_EMULATOR_TWICE: each kernel runs twice, from the same memory and in other orders. Where the results differ, its
 * threads do not agree who writes or reads first. */
static void run_kernel(const kernel_call &call) {
  static const bool twice = getenv("STEERD_EMULATOR_TWICE") != nullptr;
  snapshot before, after;
  count_launch();
  if (twice) before = snapshot_take();
  run_grid(call);
  if (!twice) return;
  after = snapshot_take();
  snapshot_put_back(before);
  run_grid(call);
  snapshot_compare(after, call.name);
}

cudaError_t emulated::launch(const char *name, const void *kernel, std::function<void()> thread, const cudaLaunchConfig_t *config, const void *args,
                             size_t bytes) {
  CALLED();
  dim3 grid = config->gridDim, block = config->blockDim;
  size_t threads = (size_t)block.x * block.y * block.z, shared = config->dynamicSmemBytes;
  bool overlaps = false;
  for (unsigned i = 0; i < config->numAttrs; i++) {
    if (!config->attrs[i].val.programmaticStreamSerializationAllowed) continue;
    if (device_major(current_device) < 9) return say(cudaErrorNotSupported); /* nobody should ask there */
    n_overlaps++;
    overlaps = true;
  }
  if (!threads || threads > MAX_THREADS || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > 0x7FFFFFFF || grid.y > 65535 ||
      grid.z > 65535)
    return say(cudaErrorInvalidConfiguration);
  if (shared > allowed_shared(kernel)) return say(cudaErrorInvalidValue);
  kernel_call call{name, thread, grid, block, shared, overlaps};
  if (translate) {
    size_t most = allowed_shared(kernel) > STATIC_SHARED ? LARGEST_SHARED : STATIC_SHARED;
    if (shared + translated_statics(kernel) > most) return say(cudaErrorInvalidValue);
    translate(kernel, args, bytes, &call);
  }
  return submit_kernel(config->stream, std::move(call));
}

extern "C" {

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*call)(void *), void *data) {
  CALLED();
  return submit(stream, [=]() { call(data); });
}
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value) {
  return emulated::set_attribute(kernel, attribute, value);
}
cudaError_t cudaFuncGetName(const char **name, const void *) {
  *name = "kernel";
  return cudaSuccess;
}

/* ---- devices and errors ------------------------------------------------------------------------------------------ */

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchTimeout: return "the launch timed out and was terminated";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureImplicit: return "dependency created on uncaptured work in another stream";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
    default: return "unknown error";
  }
}
const char *cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaPeekAtLastError(void) { return sticky != cudaSuccess ? sticky.load() : last_error; }
cudaError_t cudaGetLastError(void) {
  cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaGetDeviceCount(int *count) {
  CALLED();
  *count = 2;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int number) {
  if (number < 0 || number > 1) return say(cudaErrorInvalidDevice);
  current_device = number;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int number) {
  CALLED();
  memset(out, 0, sizeof *out);
  snprintf(out->name, sizeof out->name, "emulated");
  out->totalGlobalMem = memory_capacity();
  out->major = device_major(number);
  out->multiProcessorCount = 2;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int) {
  CALLED();
  *out = attribute == cudaDevAttrMemoryPoolsSupported;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  CALLED();
  *total = memory_capacity();
  *free = memory_capacity() - std::min(memory_capacity(), memory_taken());
  return cudaSuccess;
}

} // extern "C"
