"""Files: on disks and in buckets, our own and strangers'.

files          written atomically, and locks between processes
untrusted      reads what may be damaged or a stranger's, with checks
remote         paths of data sets, on a disk or in an object store
buckets        folders of runs in object stores, and their places on this machine
bucket_lock    locks of such folders
object_store   opens the stores themselves
"""
