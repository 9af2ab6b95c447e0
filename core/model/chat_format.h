/* chat_format.h: what a chat format is; for chat_template.c, which has the table of them and recognises templates, and chat.c,
 * which writes. */
#ifndef STEERD_CORE_MODEL_CHAT_FORMAT_H
#define STEERD_CORE_MODEL_CHAT_FORMAT_H

#include "core/model/chat.h"

/* In the pieces of a format: the tokens' spelling. */
#define CHAT_BOS "\1"
#define CHAT_EOS "\2"

enum chat_system {
  SYSTEM_TURN,    /* a turn of its own, anywhere */
  SYSTEM_ALWAYS,  /* one turn in front, there also when nothing is said */
  SYSTEM_FIRST,   /* in front only, where it is said */
  SYSTEM_IN_USER, /* the first one inside the first turn of the user */
  SYSTEM_IN_LAST, /* the first one inside the last turn of the user */
  SYSTEM_NONE
};

enum chat_trim { TRIM_NO, TRIM_EACH, TRIM_ANSWERS, TRIM_MERGED }; /* MERGED: the user's text with the system's in front */

/* What earlier answers lose. */
enum chat_thoughts { THOUGHTS_STAY, THOUGHTS_CUT, THOUGHTS_CUT_LINES }; /* up to </think>; and the line ends behind it */

enum { CHAT_MARKS = 5 };

struct chat_format {
  const char *name;
  const char *has[CHAT_MARKS], *lacks[CHAT_MARKS]; /* of the template in its plain form (chat_template.c) */
  struct chat_turn {
    const char *before, *after;
  } turns[CHAT_ROLES]; /* SYSTEM_IN_...: around it, in front of the user's text */
  const char *answer;  /* opens the answer */
  const char *quiet;   /* behind that where thoughts are turned off; NULL: there is no such switch */
  const char *ends;    /* ends one, beside EOS; NULL: EOS alone */
  enum chat_system place;
  enum chat_trim trim;
  enum chat_thoughts thoughts;
  bool alternates; /* user, assistant, user, ...; else any order */
  bool muses;      /* thinks aloud, and cannot be told not to */
  bool speaks;     /* the template may say something where no system message does */
  bool silent;     /* an empty system message is none */
};

#endif
