/* fuzz_texts.c: texts that come from elsewhere and are no weights: the first byte picks a chat template, which whatever is known of it must
 * then write chats with, or what a hub says that a repository has, of which nothing may lead out of its folder. */
#include <stdlib.h>
#include <string.h>

#include "core/model/chat.h"
#include "core/model/hub_listing.h"

/* Two turns and an opening; with and without thoughts, markers and BOS. */
static void write_chat(const struct chat_template *chat, bool quiet, const char *bos) {
  static const char said[] = "a<|im_end|>b";
  const struct chat_message messages[] = {{CHAT_SYSTEM, said, sizeof said - 1}, {CHAT_USER, said, 1}, {CHAT_ASSISTANT, said, 0}, {CHAT_USER, said, 5}};
  struct chat_text out;
  struct arena arena;
  arena_init(&arena, 0);
  for (size_t first = 0; first < 2; first++) {
    if (chat_write(chat, messages + first, 4 - first, quiet, bos, "</s>", &arena, &out, NULL) != 0) continue;
    for (size_t i = 0; i < out.n_plain; i++)
      if (out.plain[i].begin > out.plain[i].end || out.plain[i].end > out.text.length) abort();
    buffer_clear(&out.text);
  }
  arena_clear(&arena);
}

static void fuzz_chat(const char *text) {
  struct chat_template chat;
  memset(&chat, 0, sizeof chat);
  if (chat_template_read(&chat, text, NULL) == 0 && chat.format) {
    write_chat(&chat, false, NULL);
    write_chat(&chat, true, "<s>");
  }
  chat_template_clear(&chat);
}

static void fuzz_listing(const char *json, size_t length) {
  struct hub_listing listing;
  char told[256];
  if (hub_listing_read(json, length, &listing, NULL) == 0) {
    hub_choose_model(&listing);
    hub_choose_tokenizer(&listing);
    hub_choose_below(&listing, "a");
    hub_listing_tell(&listing, told);
    for (size_t i = 0; i < listing.n; i++) {
      const char *path = listing.files[i].path;
      if (path[0] == '/' || strcmp(path, "..") == 0 || strncmp(path, "../", 3) == 0 || strstr(path, "/../") || listing.files[i].size < 0) abort();
    }
  }
  hub_listing_clear(&listing);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size == 0) return 0;
  char *text = malloc(size); /* of this size, so that a step beyond it is seen; the last byte ends a template */
  memcpy(text, data + 1, size - 1);
  text[size - 1] = '\0';
  if (data[0] % 2)
    fuzz_listing(text, size - 1);
  else
    fuzz_chat(text);
  free(text);
  return 0;
}
