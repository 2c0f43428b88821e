from torchaudio import functional as functional
from torchaudio import transforms as transforms
