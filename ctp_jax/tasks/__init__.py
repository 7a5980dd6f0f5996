"""Tasks: which clips a network sees, what it learns from them and what it predicts.

base             the interface between a task and everything else; read this first
encoder          what tasks with an encoder share; as a task, it trains nothing
classification   what tasks that classify clips share
momentum         what tasks with a momentum encoder and a queue of keys share
ctp              Catch-the-Patch
rotation         3DRotNet
speednet         SpeedNet, speed and direction
pace             Pace, how many frames are skipped
vcop             VCOP, the order of clips
vcp              VCP, what was done to the second of three clips
prp              PRP, the playback rate and the frames in between
temptrans        TempTrans, how the time of a clip was transformed
moco             MoCo: two clips of a video among clips of others
infonce          InfoNCE and UberNCE, the first stage of CoCLR
coclr            CoCLR's second stage: what is alike in another stream is alike
cep              CEP, past and future from each other
tubelet          tubelet contrast: two videos with the same moving patches
dpc              DPC, what comes next in dense features
memdpc           MemDPC, the same from a memory, both ways in time
mixture          which clips of the game have their boxes from where
tracker          follows boxes through whole videos, window by window
recognition      action recognition
probe            features of a task's encoder, for evaluators of nearest neighbours
render           draws the clips of a batch, on the device

`config.task` is the name of a module with a class `Task`, or the path of one outside this
package. docs/tasks.md shows a whole task.
"""
