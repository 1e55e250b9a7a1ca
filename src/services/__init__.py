"""The services: what each is, how it is started, whether it answers, which processes are ours."""
