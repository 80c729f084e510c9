"""The web server: the pages, the health checks and the Execution API that workers talk to."""
