#!/bin/bash
# Trains examples/distributed/gan.py on two machines with four GPUs each, by Slurm:
#
#     KERAS_BACKEND=torch sbatch slurm.sh
#
# It starts one process for each GPU, on torch or JAX. ml.distribute() finds the processes, and the
# first machine of the job. Submit the same job again to resume.
#SBATCH --job-name=gan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --output=gan-%j.txt

# One dead process ends all, so that the job can be requeued.
srun --kill-on-bad-exit=1 python gan.py --folder "$HOME/runs/gan"
