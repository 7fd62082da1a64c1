"""What `import uwsgi` finds in a process that was started anew."""
