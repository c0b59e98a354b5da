// The chain: TON's own virtual machine (the reference implementation's emulator, as WebAssembly), a faucet, two wallets
// that are deployed, and a storage contract. Everything is in memory; the wallets' and contracts' addresses are the same
// at every start.
//
// The emulator is asked one thing at a time: what reads a state never meets half a transaction.

import fs from 'node:fs';
import { Blockchain } from '@ton/sandbox';
import { Address, beginCell, Cell, contractAddress, external, internal, SendMode, storeMessage, toNano } from '@ton/core';
import { keyPairFromSeed } from '@ton/crypto';
import { runTolkCompiler } from '@ton/tolk-js';
import { WalletContractV4, WalletContractV5R1 } from '@ton/ton';

// What the storage contract keeps of what it gets (storage.tolk).
const COSTS = toNano('0.05');
// The key of both wallets. It protects nothing: the money exists in this process alone.
const SEED = Buffer.alloc(32, 7);

export class Ledger {
  #chain; #faucet; #code; #turn = Promise.resolve(); #transactions = new Map(); #seqno = 1; #contracts = 0n;

  static async start() {
    const ledger = new Ledger();
    ledger.#chain = await Blockchain.create();
    ledger.#faucet = await ledger.#chain.treasury('faucet', { balance: toNano('1000000') });
    ledger.#code = await compile('storage.tolk');
    const keys = keyPairFromSeed(SEED);
    const wallets = {
      v4r2: WalletContractV4.create({ workchain: 0, publicKey: keys.publicKey }),
      v5r1: WalletContractV5R1.create({ workchain: 0, publicKey: keys.publicKey }),
    };
    const accounts = { seed: SEED.toString('hex') };
    for (const [version, wallet] of Object.entries(wallets)) {
      await ledger.#deployWallet(wallet, keys.secretKey);
      accounts[version] = wallet.address.toString();
    }
    // 1 GiB at 1,000 nanoton a MiB and day, looked at once a day: a day costs 1,024,000 nanoton.
    accounts.storage = await ledger.deployStorage({ balance: toNano('1'), fileSize: 1n << 30n, rate: 1000n, maxSpan: 86400 });
    ledger.accounts = accounts;
    return ledger;
  }

  // Runs one thing after another.
  exclusive(work) {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => {});
    return mine;
  }

  get now() { return this.#chain.now ?? Math.floor(Date.now() / 1000); }
  get seqno() { return this.#seqno; }

  // The state of an account, which exists whether or not anything is there.
  account(address) { return this.exclusive(() => this.#chain.getContract(address)); }

  getMethod(address, name, stack) { return this.exclusive(() => this.#chain.runGetMethod(address, name, stack)); }

  // A message from outside. It is refused as a liteserver refuses it, when the account does not take it.
  submit(message) { return this.exclusive(() => this.#send(message)); }

  // The newest first.
  transactions(address) { return this.#transactions.get(address.toRawString()) ?? []; }

  // Money from nowhere.
  fund(address, nanoton) {
    return this.exclusive(async () => this.#note(await this.#faucet.send({ to: address, value: nanoton, bounce: false })));
  }

  // A storage contract of these terms, with a balance paid in, for a bag of its own; its address.
  deployStorage({ balance, fileSize, rate, maxSpan, lastProofTime = 0, active = true }) {
    return this.exclusive(async () => {
      const owner = beginCell().storeAddress(this.#faucet.address).storeUint(++this.#contracts, 256).endCell();
      const data = beginCell().storeBit(active).storeCoins(0).storeAddress(this.#faucet.address).storeUint(2, 256)
        .storeUint(fileSize, 64).storeUint(0, 64).storeCoins(rate).storeUint(maxSpan, 32).storeUint(lastProofTime, 32)
        .storeRef(owner).endCell();
      const init = { code: this.#code, data };
      const address = contractAddress(0, init);
      this.#note(await this.#faucet.send({ to: address, value: balance + COSTS, bounce: false, init }));
      return address.toString();
    });
  }

  // A wallet comes to be with its first message; until then there is money at its address and nothing else.
  async #deployWallet(wallet, secretKey) {
    await this.fund(wallet.address, toNano('5'));
    const greeting = internal({ to: this.#faucet.address, value: toNano('0.01'), bounce: false });
    const body = await wallet.createTransfer({ seqno: 0, secretKey, messages: [greeting], sendMode: SendMode.PAY_GAS_SEPARATELY });
    const message = external({ to: wallet.address, init: wallet.init, body });
    await this.submit(beginCell().store(storeMessage(message)).endCell());
  }

  async #send(message) { return this.#note(await this.#chain.sendMessage(message)); }

  #note(result) {
    for (const transaction of result.transactions) {
      const hash = Buffer.from(transaction.address.toString(16).padStart(64, '0'), 'hex');
      const key = new Address(0, hash).toRawString();
      this.#transactions.set(key, [transaction, ...(this.#transactions.get(key) ?? [])]);
    }
    this.#seqno += 1;
    return result;
  }
}

async function compile(name) {
  const read = path => fs.readFileSync(new URL(path, import.meta.url), 'utf8');
  const compiled = await runTolkCompiler({ entrypointFileName: name, fsReadCallback: read });
  if (compiled.status !== 'ok') throw new Error(`${name}: ${compiled.message}`);
  return Cell.fromBase64(compiled.codeBoc64);
}
