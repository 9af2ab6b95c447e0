/* eval_command.h: the verb `steerd eval`: how well a dictionary does over a text. */
#ifndef STEERD_SERVER_EVAL_COMMAND_H
#define STEERD_SERVER_EVAL_COMMAND_H

/* argv holds the arguments behind the verb. Returns the exit status. */
int run_eval(int argc, char **argv);
void help_eval(void);

#endif
