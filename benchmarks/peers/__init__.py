"""The peers: one file for each library, each training the same network as a good user of that library would."""
