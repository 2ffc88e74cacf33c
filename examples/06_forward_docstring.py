# The example in the docstring of the reference's forward(), word for word but for the imports.
from qwen2_audio import AutoProcessor, Qwen2AudioForConditionalGeneration
from qwen2_audio.audio import load as load_audio

model = Qwen2AudioForConditionalGeneration.from_pretrained("Qwen/Qwen2-Audio-7B")
processor = AutoProcessor.from_pretrained("Qwen/Qwen2-Audio-7B")

prompt = "<|audio_bos|><|AUDIO|><|audio_eos|>Generate the caption in English:"
url = "https://huggingface.co/datasets/hf-internal-testing/transformers-synthetic-assets/resolve/main/audio/glass_breaking.mp3"
audio = load_audio(url, sampling_rate=processor.feature_extractor.sampling_rate)

inputs = processor(text=prompt, audio=audio, return_tensors="pt")

# Generate
generate_ids = model.generate(**inputs, max_length=30)
response = processor.batch_decode(generate_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)[0]
