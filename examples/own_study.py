"""Ask a question of your own from Python: does a narrow tanh network care how it starts?"""

import fanin

study = fanin.Study.from_dict(
    {
        "name": "examples/start",
        "question": "Does a narrow, deep tanh network care how it starts?",
        "recipe": {"hidden": "32x6", "activation": "tanh", "bias_init": "zeros", "epochs": 10, "batch_size": 50},
        "arms": [
            {"name": "Xavier", "init": "xavier_uniform"},
            {"name": "PyTorch default", "init": "default"},
            {"name": "N(0,1)", "init": "normal"},
        ],
    }
)

fanin.run([study], data="digits", out="runs/own-study")

with fanin.Store.open("runs/own-study") as store:
    for arm, records in store.records(study).items():
        accuracies = [record.final.test_accuracy for record in records if record.final]
        print(f"{arm:16} {len(accuracies)} seeds, mean accuracy {sum(accuracies) / len(accuracies):.4f}")
